"""Collects what builds of the accelerator took into ``benchmarks/results/fpga.json`` and the table ``fpga.md``.

    python -m tvm_ahcq.codegen.hardware.build --config ecp5_16x16
    python benchmarks/fpga_table.py build/fpga/*/result.json

A build of the same configuration, target and seed replaces the one recorded before. Builds of floating-point cores
(`codegen/hardware/baseline/`) stand beside; `fpga_baseline.py` then says what an encoder block takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import fpga_baseline

RESULTS = Path(__file__).resolve().parent / "results"
NOTES = RESULTS / "fpga_notes.md"
"""Notes on experiments by hand; they end the page."""
ECP5 = "ecp5"
AVAILABLE = {"TRELLIS_COMB": 83640, "TRELLIS_FF": 83640, "MULT18X18D": 156, "DP16KD": 208}
"""Of an ECP5-85k."""
PROVISIONAL = (
    "**Provisional**: a clock that is *estimated after placement*, or is *at most* that of a smaller routed core, is no"
    " result of routing, and neither is a ratio made of it."
)
STAGES = ("synthesis", "place", "route")


def key(record: dict[str, Any]) -> str:
    """Return the key of a build's record."""
    return f"{record['config']} {record['target']} {record.get('seed', 0)}"


def used_of(record: dict[str, Any], name: str) -> tuple[int, int]:
    """Return the amount of a resource that a build takes, and the device's; before placement, of its netlist."""
    if record["used"]:
        used, _ = record["used"].get(name, (0, 0))
    elif name == "TRELLIS_COMB":
        used = record["cells"]["LUT4"] + 2 * record["cells"]["CCU2C"]
    else:
        used = record["cells"].get(name, 0)
    return used, AVAILABLE[name]


def ecp5_table(records: list[dict[str, Any]]) -> list[str]:
    """Return the table of routed builds: resources used and available, and the clock."""
    lines = [
        "| configuration | 4-input table sites | FF | DSP | block RAM | clock, MHz | synthesis, place, route: s |",
        "|---" * 7 + "|",
    ]
    for record in records:
        cells = [record["config"]]
        for name in AVAILABLE:
            used, there = used_of(record, name)
            cells.append(f"{used} ({used / there:.0%})")
        seconds = record["seconds"]
        times = ", ".join(f"{seconds[stage]:.0f}" if stage in seconds else "-" for stage in STAGES)
        clock = f"**{record['fmax_mhz']:.1f}**" if "fmax_mhz" in record else "not routed"
        clock = f"{record['placed_mhz']:.1f} as placed, not routed" if "placed_mhz" in record else clock
        lines.append("| " + " | ".join([*cells, clock, times]) + " |")
    return lines


def count_table(records: list[dict[str, Any]]) -> list[str]:
    """Synthesised builds: resource counts."""
    kinds = list(records[0]["used"])
    lines = ["| configuration | family | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 2) + "|"]
    for record in records:
        counts = [str(record["used"][kind]) for kind in kinds]
        lines.append("| " + " | ".join([record["config"], record["target"], *counts]) + " |")
    return lines


def speed(records: list[dict[str, Any]]) -> list[str]:
    """Return the section about an encoder block on accelerator and floating-point cores; empty before measuring."""
    lines = fpga_baseline.section(records)
    if not lines:
        return []
    return [
        "## One SAM-B encoder block, against floating-point cores on the same device",
        "",
        "Cycles (`benchmarks/fpga_baseline.py`; its text says how) by the routed clock. Times of the floating-point",
        "cores have no softmax and no memory in them; those of the accelerator have both. GELU is in neither.",
        "",
        *([PROVISIONAL, ""] if any("fmax_mhz" not in record for record in records) else []),
        *lines,
    ]


def markdown(records: list[dict[str, Any]]) -> str:
    """Return the page."""
    routed = [record for record in records if record["target"] == ECP5]
    accelerators = [record for record in routed if "core" not in record]
    cores = [record for record in routed if "core" in record]
    counted = [record for record in records if record["target"] != ECP5]
    lines = ["# The accelerator on FPGAs", "", "Written by `benchmarks/fpga_table.py` from builds of "]
    lines[-1] += "`python -m tvm_ahcq.codegen.hardware.build`."
    if accelerators:
        lines += ["", "## ECP5-85k (yosys, nextpnr, speed grade 8)", "", *ecp5_table(accelerators)]
        lines += ["", "The harness of `ahcq_serial.sv` is included. Seconds are of a shared machine."]
    if cores:
        lines += ["", "## Floating-point GEMM cores on the same device", "", *ecp5_table(cores)]
        lines += ["", "`python -m tvm_ahcq.codegen.hardware.baseline.build`; the number is that of the lanes, each of"]
        lines += ["which does a multiply-add a cycle. fp32, or bf16 with fp32 sums; with the harness `fp_serial.sv`."]
    if accelerators and cores:
        lines += ["", *speed(routed)]
    if counted:
        lines += ["", "## Resource counts of `synth_xilinx`; nothing is placed", "", *count_table(counted)]
    if NOTES.is_file():
        lines += ["", NOTES.read_text().rstrip()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, help="result.json of builds")
    path = RESULTS / "fpga.json"
    recorded: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for result in parser.parse_args().results:
        record = json.loads(result.read_text())
        recorded[key(record)] = record
    recorded = dict(sorted(recorded.items()))
    path.write_text(json.dumps(recorded, indent=1) + "\n")
    (RESULTS / "fpga.md").write_text(markdown(list(recorded.values())))
    print(f"written: {path} and {RESULTS / 'fpga.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
