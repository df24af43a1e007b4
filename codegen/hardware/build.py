"""Build the accelerator for an FPGA: synthesis, place and route, bitstream, and what it takes.

    python -m tvm_ahcq.codegen.hardware.build --config ecp5_16x16
    python -m tvm_ahcq.codegen.hardware.build --config ecp5_16x16 --reuse --seed 2
    python -m tvm_ahcq.codegen.hardware.build --config zu_64x64 --target UltraScale+

Target ``ecp5`` (the default) is a Lattice ECP5-85k (LFE5UM5G, CABGA756, speed grade 8): the accelerator, in a harness
of five pins (`synthesis/ahcq_serial.sv`), goes from RTL to `ahcq.bit`. Its clock is what the router says. The families
of AMD are synthesised only and give resource counts. ``vivado`` writes a project script for a Zynq UltraScale+ with the
AXI top `ahcq_zynq.v`, which nobody has run yet.

Needs no vendor tool: `pip install "tvm-ahcq[fpga]"`. Takes minutes (sim_4x4) to tens of minutes. Everything is left in
the folder of ``--out``: netlist, logs, `report.json` with the critical paths, and `result.json`, from which
`benchmarks/fpga_table.py` makes the published table.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.isa.generated.isa import CONFIGS
from tvm_ahcq.errors import AhcqError, DeviceError

from .synthesis import ecp5, vivado, xilinx, yosys

ECP5 = "ecp5"
VIVADO = "vivado"
REUSED = {"netlist": ecp5.NETLIST, "placement": ecp5.PLACED}
"""Stages that a build can start from, and their files."""
REUSE_HELP = "take the netlist (or the placement) that is in the folder (ecp5)"
_MILESTONES = ("Packing constants", "Running main analytical placer", "Running router2", "Max frequency for clock")


def say(text: str) -> None:
    """Print progress at once."""
    print(text, flush=True)


def milestone(line: str) -> None:
    """Print the lines of the router's log that show its progress."""
    if any(mark in line for mark in _MILESTONES) or "iter=" in line or "overused" in line:
        say(f"    {line.removeprefix('Info: ')}")


def file_to_reuse(folder: Path, kind: str) -> Path:
    """Return the file of that kind (a key of ``REUSED``) in a folder.

    Raises
    ------
    DeviceError
        If it is not there.
    """
    needed = folder / REUSED[kind]
    if not needed.is_file():
        raise DeviceError(f"There is no {needed} to reuse; run without --reuse first.")
    return needed


def place_and_route(folder: Path, options: argparse.Namespace) -> ecp5.Routed:
    """Place and route the netlist of a folder, or route the placement that is there.

    Raises
    ------
    DeviceError
        If what ``--reuse`` names is not there.
    """
    file_to_reuse(folder, options.reuse or "netlist")
    if options.reuse == "placement":
        say("route ...")
        return ecp5.route(folder, options.frequency, milestone)
    say("place and route ...")
    return ecp5.place_and_route(folder, options.frequency, options.seed, milestone)


def build_ecp5(config: Config, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build a bitstream; returns the record of `result.json`."""
    seconds: dict[str, float] = {}
    if not options.reuse:
        say(f"synthesis of {config.name} for the ECP5 ...")
        seconds["synthesis"] = ecp5.synthesise(config, folder)
        say(f"  {seconds['synthesis']:.0f} s")
    file_to_reuse(folder, options.reuse or "netlist")
    record: dict[str, Any] = {"target": ECP5, "seed": options.seed, "asked_mhz": options.frequency}
    record["cells"] = yosys.cells_of_netlist(file_to_reuse(folder, "netlist"), ecp5.TOP)
    if options.place_only:
        say("place ...")
        seconds["place"] = ecp5.place(folder, options.frequency, options.seed, milestone)
        return record | asdict(ecp5.placed(folder / ecp5.PLACE_LOG)) | {"seconds": seconds}
    routed = place_and_route(folder, options)
    seconds |= routed.seconds
    say(f"  {seconds['route']:.0f} s; bitstream ...")
    seconds["pack"] = ecp5.bitstream(folder)
    return (
        record
        | asdict(routed)
        | {
            "seconds": seconds,
            "bitstream_bytes": (folder / "ahcq.bit").stat().st_size,
        }
    )


def build_xilinx(config: Config, family: str, folder: Path) -> dict[str, Any]:
    """Count resources; returns the record of `result.json`."""
    say(f"synthesis of {config.name} for {family} ...")
    used, seconds = xilinx.count(config, family, folder)
    return {"target": family, "used": used, "seconds": {"synthesis": seconds}}


def summary(record: dict[str, Any]) -> str:
    """Return a few lines for people."""
    lines = [f"{record['config']} on {record['target']}"]
    for name, used in record["used"].items():
        lines.append(f"  {name:14} {used}" if isinstance(used, int) else f"  {name:14} {used[0]} of {used[1]}")
    if "placed_mhz" in record:
        lines.append(f"  {'clock':14} {record['placed_mhz']:.1f} MHz, estimated after placement")
    if "fmax_mhz" in record:
        lines.append(f"  {'clock':14} {record['fmax_mhz']:.1f} MHz (asked {record['asked_mhz']:g})")
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tvm_ahcq.codegen.hardware.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="ecp5_16x16", help=f"{', '.join(CONFIGS)} (default: %(default)s)")
    parser.add_argument("--target", default=ECP5, choices=[ECP5, *xilinx.FAMILIES, VIVADO], help="default: %(default)s")
    parser.add_argument("--frequency", type=float, default=120.0, help="MHz to place and route for (default: 120)")
    parser.add_argument("--seed", type=int, default=1, help="of the placer; another one may give some MHz more")
    parser.add_argument("--reuse", nargs="?", const="netlist", choices=list(REUSED), help=REUSE_HELP)
    parser.add_argument("--place-only", action="store_true", help="do not route: the clock is an estimate (ecp5)")
    parser.add_argument("--out", type=Path, help="folder to work in (default: build/fpga/CONFIG-TARGET)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 with a message if something is missing or fails."""
    options = parse(arguments)
    try:
        config = named(options.config)
        folder: Path = options.out or Path("build") / "fpga" / f"{config.name}-{options.target.lower()}"
        folder.mkdir(parents=True, exist_ok=True)
        if options.target == VIVADO:
            say(f"written: {vivado.write_project(config, folder, options.frequency)} (untested: needs Vivado)")
            return 0
        if options.target == ECP5:
            record = build_ecp5(config, folder, options)
        else:
            record = build_xilinx(config, options.target, folder)
    except AhcqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    record = {"config": config.name, **record}
    (folder / "result.json").write_text(json.dumps(record, indent=1) + "\n")
    say(f"{summary(record)}\nwritten: {folder / 'result.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
