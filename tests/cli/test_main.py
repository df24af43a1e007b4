"""The command line as a user meets it: a process, its output, its exit status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import tvm_ahcq

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COMMANDS = (
    "demo",
    "compile",
    "segment",
    "track",
    "eval",
    "analyze",
    "info",
    "verify",
    "profile",
    "disasm",
    "devices",
    "serve",
    "unpack",
    "tune",
    "bench",
    "scenes",
)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 2, nothing on standard output, and one line on standard error that contains `words`."""
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.fixture
def no_bundle(tmp_path: Path) -> Path:
    path = tmp_path / "text.ahcq"
    path.write_text("this is not a bundle")
    return path


def test_version_is_that_of_the_package(run_cli: Run) -> None:
    assert run_cli("--version").stdout == f"tvm-ahcq {tvm_ahcq.__version__}\n"


def test_help_lists_every_command(run_cli: Run) -> None:
    done = run_cli("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example(run_cli: Run, command: str) -> None:
    done = run_cli(command, "--help")
    assert done.returncode == 0
    assert f"tvm-ahcq {command}" in done.stdout.split("example", 1)[1]


def test_help_of_deployment_commands_needs_no_heavy_package() -> None:
    code = (
        "import sys; from tvm_ahcq.cli.main import build_parser; build_parser(); "
        "print(sorted({'torch', 'tvm', 'tvm_ffi', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), ("COMMAND", "--help")),
        (("quantise",), ("quantise", "segment")),
        (("info",), ("F.ahcq",)),
        (("info", "absent.ahcq"), ("absent.ahcq", "no such file")),
        (("verify", "."), (". is a folder",)),
        (("segment", "--colour"), ("--help",)),
        (("compile", "--model", "vit_t"), ("-o/--output",)),
        (("compile", "--model", "vit_x", "-o", "x.ahcq"), ("vit_x", "vit_t")),
        (("compile", "--model", "vit_t", "--bits", "four", "-o", "x.ahcq"), ("--bits", "four")),
        (("compile", "--model", "vit_b", "-o", "x.ahcq"), ("vit_b", "--checkpoint")),
        (("compile", "--model", "vit_b", "--checkpoint", "absent.pth", "-o", "x.ahcq"), ("absent.pth", "no such file")),
        (
            ("compile", "--model", "vit_t", "--calibration", "absent", "-o", "x.ahcq"),
            ("absent", "no such file or folder"),
        ),
        (("compile", "--model", "vit_t", "-o", "absent/x.ahcq"), ("absent", "mkdir -p")),
        (("compile", "--model", "vit_t", "-o", "."), ("folder",)),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--table", "x.ahcq"), ("x.ahcq", "twice")),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--recipe", "soup"), ("soup", "ahcq")),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--bits", "3"), ("3", "4, 5, 6, 8")),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--target", "abacus"), ("abacus", "native")),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--max-drop", "2"), ("--max-drop 2", "0.02")),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--effort", "most"), ("most", "high")),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--effort", "high", "--max-drop", "0.1"), ("--max-drop",)),
        (("compile", "--model", "vit_t", "-o", "x.ahcq", "--work-dir", "."), ("--work-dir", "--effort high")),
        (("demo", "--out-dir", "absent"), ("absent", "does not exist")),
        (("tune", "--out", "t"), ("--model", "not both")),
        (("tune", "--model", "vit_b", "--accelerator", "abacus", "--out", "t"), ("abacus", "ecp5_16x16")),
        (("tune", "--model", "vit_t", "--accelerator", "sim_4x4", "--out", "t"), ("vit_t", "vit_b", "give a bundle")),
        (("tune", "--model", "vit_b", "--accelerator", "sim_4x4", "--target", "avx2", "--out", "t"), ("--target",)),
        (
            ("tune", "--model", "vit_b", "--accelerator", "sim_4x4", "--rpc", "h:1", "--key", "k", "--out", "t"),
            ("--rpc",),
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(
    run_cli: Run, arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    assert_refused(run_cli(*arguments, cwd=tmp_path), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, words",
    [
        ((), ("--point", "--box")),
        (("--point", "12"), ("'12'", "X,Y")),
        (("--point", "1,2,3"), ("'1,2,3'", "X,Y")),
        (("--point", "a,b"), ("'a,b'", "X,Y")),
        (("--point", "nan,2"), ("'nan,2'", "X,Y")),
        (("--box", "9,9,1,1"), ("'9,9,1,1'", "top left")),
        (("--box", "1,2,3"), ("'1,2,3'", "X0,Y0,X1,Y1")),
        (("--point", "1,1", "--mask-out", "mask.xyz"), ("mask.xyz", ".png")),
        (("--point", "1,1", "--mask-out", "picture.png"), ("picture.png", "overwrite")),
        (("--point", "1,1"), ("text.ahcq", "not an .ahcq bundle")),
    ],
)
def test_segment_refuses_prompts_and_files_that_cannot_work(
    run_cli: Run, options: tuple[str, ...], words: tuple[str, ...], picture: Path, no_bundle: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    assert_refused(run_cli("segment", no_bundle.name, picture.name, *options, "-o", "out.png", cwd=tmp_path), *words)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["info", "verify"])
def test_what_is_not_a_bundle_is_refused(run_cli: Run, command: str, no_bundle: Path) -> None:
    assert_refused(run_cli(command, no_bundle), "text.ahcq", "not an .ahcq bundle")


def test_a_protected_output_folder_is_refused(run_cli: Run, tmp_path: Path) -> None:
    folder = tmp_path / "protected"
    folder.mkdir(mode=0o500)
    try:
        (folder / "probe").touch()
    except PermissionError:
        pass
    else:
        pytest.skip("this user may write everywhere")
    assert_refused(run_cli("compile", "--model", "vit_t", "-o", folder / "x.ahcq"), "no permission")
