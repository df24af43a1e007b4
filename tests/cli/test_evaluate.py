"""``tvm-ahcq eval`` and ``tvm-ahcq scenes`` as a user meets them; bundles are evaluated in ``test_end_to_end.py``."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.cli.main import main
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.manifest import Manifest, TargetSpec

Run = Callable[..., "subprocess.CompletedProcess[str]"]
DATA = ("--images", "images", "--masks", "masks")
COCO = ("--images", "images", "--coco", "instances.json")


@pytest.fixture(scope="module")
def scenes(run_cli: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``tvm-ahcq scenes`` writes."""
    folder = tmp_path_factory.mktemp("cli") / "try"
    done = run_cli("scenes", folder, "--count", 4)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(str(path) in done.stdout for path in folder.iterdir()) and len(list(folder.iterdir())) == 4
    return folder


def bundle(path: Path, sites: tuple[int, int]) -> Path:
    """A bundle for this machine, with a library that nobody loads."""
    manifest = Manifest(
        SamSpec("vit_x", 320, 20, 96, 0.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        TargetSpec("generic", f"{platform.machine()}-linux-gnu"),
        {},
        {"name": "ahcq"},
        4,
        sites,
    )
    write_bundle(path, manifest, b"machine code", {"weight": np.zeros(3, np.float32)})
    return path


@dataclass(frozen=True)
class Measured:
    """What came of ``eval`` on masks with the float model, then with a bundle that cannot be run."""

    done: subprocess.CompletedProcess[str]
    written: dict[str, Any]


@pytest.fixture(scope="module")
def measured(run_cli: Run, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("measured")
    broken = bundle(folder / "broken.ahcq", (9, 9))
    done = run_cli("eval", "float", broken, "--model", "vit_t", *DATA, "--json", folder / "out.json", cwd=scenes)
    return Measured(done, json.loads((folder / "out.json").read_text()))


def test_masks_give_a_table_and_the_score_of_every_object(measured: Measured) -> None:
    accuracy = measured.written["models"][0]["accuracy"]
    assert measured.written["data"]["pictures"] == 5 and accuracy["empty"] == 1
    assert len(accuracy["scores"]) == accuracy["objects"]
    for way in ("click", "single_click", "box"):
        assert accuracy[way] == pytest.approx(np.mean([score[way] for score in accuracy["scores"]]))
        assert accuracy[way] > 0.75 and f"{accuracy[way]:.4f}" in measured.done.stdout
    assert "click (best of 3)" in measured.done.stdout and f"{accuracy['objects']} objects" in measured.done.stdout


def test_what_was_measured_is_printed_and_written_when_a_later_model_fails(measured: Measured) -> None:
    assert measured.done.returncode == 2 and len(measured.done.stderr.splitlines()) == 1
    assert "broken.ahcq" in measured.done.stderr and "float32, torch" in measured.done.stdout
    assert [(model["name"], model["sites"]) for model in measured.written["models"]] == [("float", None)]


def test_coco_gives_the_figures_that_it_writes(run_cli: Run, scenes: Path, tmp_path: Path) -> None:
    done = run_cli("eval", "float", "--model", "vit_t", *COCO, "--json", tmp_path / "out.json", cwd=scenes)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    accuracy = json.loads((tmp_path / "out.json").read_text())["models"][0]["accuracy"]
    assert accuracy["ap50"] > accuracy["ap"] > 0.5 and accuracy["miou"] > 0.8
    assert all(f"{accuracy[name]:.4f}" in done.stdout for name in ("ap", "ap50", "ap75", "miou"))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), ("MODEL",)),
        (("absent.ahcq", *DATA), ("absent.ahcq", "no such file", "`float`")),
        (("instances.json", *DATA), ("instances.json", "not an .ahcq bundle")),
        (("float", "--model", "vit_t"), ("--masks", "--coco", "--vos")),
        (("float", "--model", "vit_t", "--images", "images"), ("--masks", "--coco")),
        (("float", "--model", "vit_t", "--masks", "masks"), ("--images DIR is missing",)),
        (("float", "--model", "vit_t", *DATA, "--coco", "instances.json"), ("--coco", "not allowed with")),
        (("float", "--model", "vit_t", *DATA, "--detections", "detections.json"), ("--detections needs --coco",)),
        (("float", "--model", "vit_t", *COCO, "--void", "255"), ("--void is for --masks",)),
        (("float", "--model", "vit_t", *COCO, "--prompt", "box"), ("--prompt is for --masks",)),
        (("float", *DATA), ("float of which model", "vit_t")),
        (("float", "--model", "vit_b", *DATA), ("vit_b", "--checkpoint")),
        (("float", "float", "--model", "vit_t", *DATA), ("given twice",)),
        (("float", "--model", "vit_t", "--bits", "4", *DATA), ("--bits is for fake-quant",)),
        (("fake-quant", "--model", "vit_t", "--bits", "3", *DATA), ("3", "4, 5, 6, 8")),
        (("fake-quant", "--model", "vit_t", "--recipe", "soup", *DATA), ("soup", "ahcq")),
        (
            ("fake-quant", "--model", "vit_t", "--calibration", "instances.json", "--bits", "4", *DATA),
            ("recipe of its",),
        ),
        (("float", "--model", "vit_t", "--images", "absent", "--masks", "masks"), ("absent", "no such folder")),
        (("float", "--model", "vit_t", "--images", "images", "--masks", "instances.json"), ("expected a folder",)),
        (("float", "--model", "vit_t", "--limit", "0", *DATA), ("'0'", "1, 2, 3")),
        (("float", "--model", "vit_t", *COCO, "--json", "instances.json"), ("instances.json", "overwrite")),
        (("float", "--model", "vit_t", *COCO, "--detections", "instances.json"), ("holds a dict", "expected a list")),
        (
            ("float", "--model", "vit_t", "--images", "masks", "--coco", "detections.json"),
            ("not a COCO instance file",),
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(
    run_cli: Run, arguments: tuple[str, ...], words: tuple[str, ...], scenes: Path
) -> None:
    done = run_cli("eval", *arguments, cwd=scenes)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done
    assert all(word in done.stderr for word in words), done.stderr


def test_a_mask_of_another_size_is_refused_before_any_model_is_loaded(
    run_cli: Run, scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    Image.new("L", (200, 100)).save(tmp_path / "masks" / "000002.png")
    done = run_cli("eval", "float", "--model", "vit_t", "--images", scenes / "images", "--masks", tmp_path / "masks")
    assert (done.returncode, done.stdout) == (2, "")
    assert "masks/000002.png is 200 x 100" in done.stderr and "images/000002.png 256 x 256" in done.stderr


def test_a_bundle_with_sites_in_float_is_refused(run_cli: Run, scenes: Path, tmp_path: Path) -> None:
    path = bundle(tmp_path / "half.ahcq", (7, 9))
    done = run_cli("eval", path, *DATA, cwd=scenes)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "half.ahcq: 7/9 quantization sites are on integers" in done.stderr


def test_coco_without_pycocotools_says_how_to_install_it(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    path = bundle(tmp_path / "whole.ahcq", (9, 9))
    assert main(["eval", str(path), "--images", str(scenes / "images"), "--coco", str(scenes / "instances.json")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "pip install pycocotools" in captured.err
