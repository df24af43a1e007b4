"""Resource counts for AMD devices: Yosys' synthesis, nothing is placed (no open router for them is on PyPI)."""

from __future__ import annotations

from pathlib import Path

from tvm_ahcq.codegen.isa.config import Config

from . import yosys

FAMILIES = {"7-series": "xc7", "UltraScale+": "xcup"}
"""Family -> its name in ``synth_xilinx``."""
TOP = "ahcq_top"
_GROUPS = {
    "LUT": ("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6"),
    "LUTRAM": ("RAM32M", "RAM32M16", "RAM64M", "RAM64M8", "RAM32X1D", "RAM64X1D", "RAM128X1D"),
    "carry": ("CARRY4", "CARRY8"),
    "FF": ("FDRE", "FDSE", "FDCE", "FDPE"),
    "DSP": ("DSP48E1", "DSP48E2"),
    "BRAM36": ("RAMB36E1", "RAMB36E2"),
    "BRAM18": ("RAMB18E1", "RAMB18E2"),
    "URAM": ("URAM288",),
}


def count(config: Config, family: str, folder: Path) -> tuple[dict[str, int], float]:
    """Resources of the accelerator by kind, and the seconds it took to count them."""
    sources = yosys.copy_sources(folder, ())
    commands = [
        yosys.read_command(sources, TOP, config.parameters()),
        yosys.KEEP_COPIES,
        f"synth_xilinx -family {FAMILIES[family]} -top {TOP} -noiopad -flatten",
        "tee -o cells.json stat -json",
    ]
    seconds = yosys.synthesise(folder, "synthesis", commands)
    cells = yosys.cells_in(folder / "cells.json")
    return {kind: sum(cells.get(name, 0) for name in names) for kind, names in _GROUPS.items()}, seconds
