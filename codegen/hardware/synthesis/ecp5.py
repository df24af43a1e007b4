"""The ECP5-85k: synthesis, placement, routing, bitstream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.errors import DeviceError

from . import tools, yosys

DEVICE = ("--um5g-85k", "--package", "CABGA756", "--speed", "8")
CLOCK_SITE = "B29"
TOP = "ahcq_serial"
NETLIST = "netlist.json"
PLACED = "placed.json"
PLACE_LOG = "place.log"
# the default, heap, crowds the cells of a design that fills half of the device until no router ends
PLACER = "static"
ROUTER = "router2"
_UTILISATION = re.compile(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%$", re.MULTILINE)
_CLOCK = re.compile(r"Max frequency for clock '[^']*': ([\d.]+) MHz")


@dataclass(frozen=True)
class Routed:
    """Results of place and route.

    Attributes
    ----------
    used : dict of str to tuple of int
        Resource -> used and available; TRELLIS_COMB are sites of 4-input tables, half a carry cell or a RAM included.
    fmax_mhz : float
        Of the routed clock, worst process corner of the speed grade.
    seconds : dict of str to float
        Stage -> time it took.
    """

    used: dict[str, tuple[int, int]]
    fmax_mhz: float
    seconds: dict[str, float]


@dataclass(frozen=True)
class Placed:
    """Results of placement; wires are estimates before they are routed.

    Attributes
    ----------
    used : dict of str to tuple of int
        As in :class:`Routed`.
    placed_mhz : float
        Estimate of the clock.
    """

    used: dict[str, tuple[int, int]]
    placed_mhz: float


def synthesise(config: Config, folder: Path) -> float:
    """Synthesise the RTL to ``netlist.json``; returns seconds."""
    sources = yosys.copy_sources(folder, yosys.ECP5_CELLS, ("ahcq_serial.sv",))
    read = yosys.read_command(sources, TOP, config.parameters())
    return synthesise_netlist(folder, [read], TOP)


def synthesise_netlist(folder: Path, read: list[str], top: str) -> float:
    """Synthesise any top module to ``netlist.json``; returns seconds."""
    (folder / NETLIST).unlink(missing_ok=True)
    # no program reads a word while it is written, so nothing need decide what such a read gives
    commands = [*read, yosys.KEEP_COPIES, f"synth_ecp5 -no-rw-check -top {top} -json {NETLIST}"]
    return yosys.synthesise(folder, "synthesis", commands)


def constraints(clock: str = "clk_i") -> str:
    """Return the LPF file: only the clock has a fixed pin."""
    return f'LOCATE COMP "{clock}" SITE "{CLOCK_SITE}";\nIOBUF PORT "{clock}" IO_TYPE=LVCMOS33;\n'


def place(folder: Path, frequency_mhz: float, seed: int = 1, show: Callable[[str], None] | None = None) -> float:
    """Place ``netlist.json`` to ``placed.json``, from which routing can be tried again; returns seconds."""
    (folder / PLACED).unlink(missing_ok=True)
    (folder / "pins.lpf").write_text(constraints())
    # the file of the placement keeps the router too, and that goes before what routing is told
    arguments = [
        "--json",
        NETLIST,
        "--seed",
        str(seed),
        "--placer",
        PLACER,
        "--router",
        ROUTER,
        "--no-route",
        "--write",
        PLACED,
    ]
    _, seconds = tools.run("nextpnr-ecp5", [*arguments, *_options(frequency_mhz)], folder, PLACE_LOG, show)
    return seconds


def placed(log: Path) -> Placed:
    """Return the results in the log of :func:`place`.

    Raises
    ------
    DeviceError
        If it is not the log of a placement that ended.
    """
    text = log.read_text()
    used = {name: (int(count), int(there)) for name, count, there in _UTILISATION.findall(text)}
    clocks = [float(mhz) for mhz in _CLOCK.findall(text)]
    if not used or not clocks:
        raise DeviceError(f"{log} says of no placement that ended what it uses and how fast it is.")
    return Placed({name: pair for name, pair in used.items() if pair[0]}, min(clocks))


def route(folder: Path, frequency_mhz: float, show: Callable[[str], None] | None = None) -> Routed:
    """``placed.json`` to ``routed.config``; a missed target is no error, the report says what was reached."""
    (folder / "pins.lpf").write_text(constraints())
    arguments = [
        "--json",
        PLACED,
        "--no-pack",
        "--no-place",
        "--router",
        ROUTER,
        "--textcfg",
        "routed.config",
        "--report",
        "report.json",
    ]
    _, seconds = tools.run("nextpnr-ecp5", [*arguments, *_options(frequency_mhz)], folder, "route.log", show)
    return _report(folder / "report.json", seconds)


def place_and_route(
    folder: Path, frequency_mhz: float, seed: int = 1, show: Callable[[str], None] | None = None
) -> Routed:
    """``netlist.json`` to ``routed.config``, both stages."""
    placing = place(folder, frequency_mhz, seed, show)
    routed = route(folder, frequency_mhz, show)
    return replace(routed, seconds={"place": placing} | routed.seconds)


def _options(frequency_mhz: float) -> list[str]:
    return [
        *DEVICE,
        "--lpf",
        "pins.lpf",
        "--lpf-allow-unconstrained",
        "--freq",
        str(frequency_mhz),
        "--timing-allow-fail",
    ]


def bitstream(folder: Path) -> float:
    """``routed.config`` to ``ahcq.bit``; returns seconds."""
    _, seconds = tools.run("ecppack", ["--compress", "routed.config", "ahcq.bit"], folder, "pack.log")
    return seconds


def _report(path: Path, seconds: float) -> Routed:
    report = json.loads(path.read_text())
    used = {name: (entry["used"], entry["available"]) for name, entry in report["utilization"].items()}
    clocks = [entry["achieved"] for entry in report["fmax"].values()]
    return Routed({name: pair for name, pair in used.items() if pair[0]}, min(clocks), {"route": seconds})
