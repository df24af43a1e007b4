"""``tvm-ahcq analyze`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tvm_ahcq.scenes import generate

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a report of each form, a page that is a folder, a table and a checkpoint that nobody reads."""
    for name in ("old", "page.html", "pictures"):
        (tmp_path / name).mkdir()
    for name in ("old.html", "plain", "old.json", "t.json", "f.pth"):
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("-o", "old.html"), ("old.html exists already", "--overwrite")),
        (("-o", "old"), ("old exists already", "--overwrite")),
        (("-o", "page.html"), ("page.html is a folder",)),
        (("-o", "page.html", "--overwrite"), ("page.html is a folder",)),
        (("-o", "plain", "--overwrite"), ("plain is a file", "NAME.html")),
        (("-o", "absent/new.html"), ("absent does not exist", "mkdir -p")),
        (("-o", "absent/new"), ("absent does not exist", "mkdir -p")),
        (("-o", "new.html", "--json", "old.json"), ("old.json exists already", "--overwrite")),
        (("-o", "new.html", "--json", "new.html"), ("new.html", "twice")),
        (("-o", "new.html", "--table", "absent.json"), ("absent.json", "no such file")),
        (("-o", "new.html", "--table", "t.json"), ("t.json", "not a quantization table")),
        (("-o", "new.html", "--table", "t.json", "--bits", "6"), ("t.json", "--bits")),
        (("-o", "new.html", "--table", "t.json", "--calibration", "pictures"), ("--table", "--calibration")),
        (("-o", "new.html", "--calibration", "t.json"), ("t.json is a file", "--table")),
        (("-o", "new.html", "--images", "pictures"), ("pictures", "no image files")),
        (("-o", "new.html", "--pictures", "0"), ("--pictures 0",)),
        (("-o", "new.html", "--effect", "channels"), ("channels", "blocks")),
        (("-o", "new.html", "--bits", "3"), ("3", "4, 5, 6, 8")),
        (("-o", "new.html", "--recipe", "soup"), ("soup", "ahcq")),
    ],
)
def test_mistakes_are_refused_in_one_line_and_nothing_is_written(
    run_cli: Run, arguments: tuple[str, ...], words: tuple[str, ...], folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    done = run_cli("analyze", "--model", "vit_t", *arguments, cwd=folder)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done
    assert all(word in done.stderr for word in words), done.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), ("vit_b", "--checkpoint")),
        (("--checkpoint", "f.pth"), ("vit_b", "--calibration", "--table")),
        (("--checkpoint", "f.pth", "--table", "t.json"), ("vit_b", "--images")),
    ],
)
def test_models_without_weights_say_what_they_need(
    run_cli: Run, arguments: tuple[str, ...], words: tuple[str, ...], folder: Path
) -> None:
    done = run_cli("analyze", "--model", "vit_b", *arguments, "-o", "new.html", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.slow
def test_a_report_folder_is_made_and_made_again_only_when_asked(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(generate(3).image).save(tmp_path / "pictures" / "scene.png")
    command = (
        "analyze",
        "--model",
        "vit_t",
        "--calibration",
        "pictures",
        "--pictures",
        1,
        *("--effect", "blocks", "--recipe", "minmax", "-o", "report"),
    )
    done = run_cli(*command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    figures = json.loads((tmp_path / "report" / "sensitivity.json").read_text())
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "sensitivity.json"]
    assert "What hurts most" in page and len(figures["sites"]) == figures["model"]["sites"] == 126

    lines = done.stdout.splitlines()
    worst = lines[next(place for place, line in enumerate(lines) if line.split()[0] == "worst") :][:5]
    assert [line.split()[-1] for line in worst] == [effect["name"] for effect in figures["effects"][:5]]
    assert "that calibration has seen" in done.stdout

    again = run_cli(*command, cwd=tmp_path)
    assert again.returncode == 2 and "exists already" in again.stderr
