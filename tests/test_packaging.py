"""What a user gets from an installation, and what the README promises about it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest

import tvm_ahcq

ROOT = Path(__file__).resolve().parent.parent


def first_fenced_block(heading: str) -> list[str]:
    """Lines of the first fenced block under `heading` in the README."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    match = re.search(r"^```\w*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert match, f"no fenced block under {heading!r}"
    return match.group(1).splitlines()


def printed_by(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("heading", ["Quick start", "Tests"])
def test_readme_sections_open_with_one_command_line(heading: str) -> None:
    lines = first_fenced_block(heading)
    assert len(lines) == 1
    assert "pip install" in lines[0]


def test_ci_runs_the_readme_test_line() -> None:
    (line,) = first_fenced_block("Tests")
    assert line in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("check", ["ruff check", "ruff format", "mypy", "clang-format", ".ci/lint_rtl.py"])
def test_ci_and_hooks_run_the_same_checks(check: str) -> None:
    for file in (".ci/run", ".pre-commit-config.yaml"):
        assert check in (ROOT / file).read_text()


@pytest.mark.parametrize("name", ["relay_passes", "codegen"])
def test_top_folders_are_linked_into_the_package(name: str) -> None:
    assert (ROOT / "tvm_ahcq" / name).readlink() == Path("..") / name


def test_wheel_leaves_out_files_that_exist() -> None:
    (table,) = re.findall(
        r"^wheel\.exclude = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
    )
    patterns = re.findall(r'"(.+?)"', table)
    assert patterns and all(list(ROOT.glob(pattern)) for pattern in patterns)


def test_top_folders_are_subpackages() -> None:
    code = "import tvm_ahcq.relay_passes as a, tvm_ahcq.codegen as b; print(a.__name__, b.__name__)"
    assert printed_by(code).split() == ["tvm_ahcq.relay_passes", "tvm_ahcq.codegen"]


def test_package_is_marked_as_typed() -> None:
    assert resources.files(tvm_ahcq).joinpath("py.typed").is_file()


def test_installed_metadata_agrees_with_the_package() -> None:
    try:
        version = metadata.version("tvm-ahcq")
    except metadata.PackageNotFoundError:
        pytest.skip("not installed: run from the source tree")
    assert version == tvm_ahcq.__version__
    (script,) = [e for e in metadata.distribution("tvm-ahcq").entry_points if e.group == "console_scripts"]
    assert script.value == "tvm_ahcq.cli.main:main"


def test_torch_and_torchvision_belong_together() -> None:
    (pin,) = [r for r in metadata.requires("torchvision") or [] if re.match(r"torch\b", r)]
    expected = re.search(r"==\s*([\d.]+)", pin)
    assert expected, pin
    assert metadata.version("torch").split("+")[0] == expected.group(1)


def test_importing_the_package_loads_neither_torch_nor_tvm() -> None:
    code = "import sys, tvm_ahcq; print(*sys.modules)"
    loaded = set(printed_by(code).split())
    assert "tvm_ahcq" in loaded and not loaded & {"torch", "tvm", "tvm_ffi", "numpy"}
