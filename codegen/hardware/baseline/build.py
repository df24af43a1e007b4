"""Builds a floating-point core for the ECP5-85k: synthesis, place and route.

    python -m tvm_ahcq.codegen.hardware.baseline.build --format fp32 --lanes 48 --dsps 3

The flow, the device and the kind of harness (five pins, `fp_serial.sv`) are those of the accelerator. Leaves netlist,
logs, `report.json` and `result.json` in the folder of ``--out``; `benchmarks/fpga_table.py` collects the results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvm_ahcq.codegen.hardware.build import REUSE_HELP, REUSED, place_and_route, say, summary
from tvm_ahcq.codegen.hardware.synthesis import ecp5, yosys
from tvm_ahcq.errors import AhcqError

from .model import Core
from .sources import HERE, rtl_sources

TOP = "fp_serial"
_CELLS = (yosys.HERE / "ecp5_cells.sv", yosys.HERE / "ecp5_add_sub.sv", HERE / "ecp5_rows.sv")
_REPLACED = ("ahcq_add_sub.sv", "fp_rows.sv")
"""Modules of which the ECP5 has its own."""


def synthesise(core: Core, folder: Path) -> float:
    """Synthesise the RTL to ``netlist.json``; returns seconds."""
    paths = [path for path in rtl_sources() if path.name not in _REPLACED] + [*_CELLS, HERE / "fp_serial.sv"]
    (folder / yosys.RTL).mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, folder / yosys.RTL / path.name)
    sources = [f"{yosys.RTL}/{path.name}" for path in paths]
    return ecp5.synthesise_netlist(folder, [yosys.read_command(sources, TOP, core.parameters())], TOP)


def build(core: Core, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The record of ``result.json``; without a clock if only synthesis is asked for."""
    seconds: dict[str, float] = {}
    if not options.reuse:
        say(f"synthesis of {core.name} for the ECP5 ...")
        seconds["synthesis"] = synthesise(core, folder)
    record: dict[str, Any] = {"config": core.name, "target": "ecp5", "seed": options.seed, "core": asdict(core)}
    if options.synthesis_only:
        record["used"] = {}
    else:
        routed = place_and_route(folder, options)
        record |= {"asked_mhz": options.frequency} | asdict(routed)
        seconds |= routed.seconds
    return record | {"seconds": seconds, "cells": yosys.cells_of_netlist(folder / ecp5.NETLIST, TOP)}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tvm_ahcq.codegen.hardware.baseline.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", default="fp32", choices=["fp32", "bf16"], help="of operands (default: %(default)s)")
    parser.add_argument("--lanes", type=int, default=48, help="multiply-adds a cycle (default: %(default)s)")
    parser.add_argument("--dsps", type=int, default=3, help="DSP blocks of an fp32 product: 2, 3 (default) or 4")
    parser.add_argument("--frequency", type=float, default=120.0, help="MHz to place and route for (default: 120)")
    parser.add_argument("--seed", type=int, default=1, help="of the placer")
    parser.add_argument("--reuse", nargs="?", const="netlist", choices=list(REUSED), help=REUSE_HELP)
    parser.add_argument("--synthesis-only", action="store_true", help="count cells, do not place and route")
    parser.add_argument("--out", type=Path, help="folder to work in (default: build/fpga/FORMAT_xLANES-ecp5)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 with a message if something is missing or fails."""
    options = parse(arguments)
    try:
        core = Core(options.format, options.lanes, options.dsps)
        folder: Path = options.out or Path("build") / "fpga" / f"{core.name}-ecp5"
        folder.mkdir(parents=True, exist_ok=True)
        record = build(core, folder, options)
    except AhcqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (folder / "result.json").write_text(json.dumps(record, indent=1) + "\n")
    say(f"{summary(record)}\nwritten: {folder / 'result.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
