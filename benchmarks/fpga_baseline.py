"""One SAM-B encoder block: the accelerator against floating-point cores on the same FPGA.

    python benchmarks/fpga_baseline.py --config ecp5_16x16

counts the cycles of every GEMM and of the whole attention of a window block and of a global block, as the compiler
lowers them, on the functional simulator (whose cycles are those of the RTL: see `fpga_busy.py`) and writes
``benchmarks/results/fpga_block.json``. `fpga_table.py` divides them by the routed clock and sets beside them what the
floating-point cores of `codegen/hardware/baseline/` need: the cycles of their formula, verified in simulation, by their
own routed clock.

Where the two do not do the same, the floating-point core is spared: its softmax costs nothing, its relative positions
only their products at full speed, its operands are never late, results of attention never wait, and of each GEMM it
takes the better of both ways round. The accelerator's cycles have all of that in them, memory of 8 bytes a cycle and
latency 40 too. Scales and GELU are in neither: the accelerator's host computes them from its accumulators.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fpga_busy

from tvm_ahcq.codegen.hardware.baseline.model import Core, cycles, gemm_tiles, step_cycles
from tvm_ahcq.codegen.isa.config import Config, named

RESULTS = Path(__file__).resolve().parent / "results"
BLOCK = RESULTS / "fpga_block.json"
CHANNELS, HEADS, HEAD, SIDE, WINDOW = 768, 12, 64, 64, 14
FILLING = 32
"""Lanes below which a floating-point core leaves most of the device empty: nothing is compared with it."""


@dataclass(frozen=True)
class Part:
    """A GEMM (rows, depth, columns, channel groups), or attention (heads, side of their picture)."""

    name: str
    gemm: tuple[int, int, int, int] | None = None
    heads: tuple[int, int] | None = None


def parts(kind: str) -> list[Part]:
    """Return the parts of a ``window`` or ``global`` block; windows of 14 x 14 cover a padded picture of 70 x 70."""
    tokens = SIDE**2
    windows = (-(-SIDE // WINDOW)) ** 2
    inside = windows * WINDOW**2 if kind == "window" else tokens
    heads = (HEADS * windows, WINDOW) if kind == "window" else (HEADS, SIDE)
    return [
        Part("qkv", (inside, CHANNELS, 3 * CHANNELS, 4)),
        Part("attention", heads=heads),
        Part("proj", (inside, CHANNELS, CHANNELS, 1)),
        Part("lin1", (tokens, CHANNELS, 4 * CHANNELS, 4)),
        Part("lin2", (tokens, 4 * CHANNELS, CHANNELS, 1)),
    ]


def products(part: Part) -> int:
    """Multiply-adds of a part."""
    if part.gemm:
        rows, depth, columns, _ = part.gemm
        return rows * depth * columns
    count, side = part.heads or (0, 0)
    return count * side**2 * HEAD * (2 * side**2 + 2 * side)


def accelerator_cycles(config: Config, part: Part) -> int:
    """Return the cycles of a part, as the compiler lowers it."""
    if part.gemm:
        rows, depth, columns, groups = part.gemm
        return fpga_busy.cycles(config, fpga_busy.linear(config, rows, depth, columns, groups))
    count, side = part.heads or (0, 0)
    return fpga_busy.cycles(config, fpga_busy.attention(config, count, (side, side), HEAD))


def both_ways(core: Core, rows: int, depth: int, columns: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Tiles of a GEMM, and those of its transposed."""
    return gemm_tiles(core, rows, depth, columns), gemm_tiles(core, columns, depth, rows)


def streamed_cycles(core: Core, rows: int, depth: int, columns: int) -> int:
    """Return the cycles of a GEMM whose results never have to wait for one another, as if they stayed on chip."""
    ways = both_ways(core, rows, depth, columns)
    return min(sum(steps * step_cycles(core, size) for size, steps in tiles) for tiles in ways)


def baseline_cycles(core: Core, part: Part) -> int:
    """Return the cycles of a part on a floating-point core."""
    if part.gemm:
        return min(cycles(core, tiles) for tiles in both_ways(core, *part.gemm[:3]))
    count, side = part.heads or (0, 0)
    tokens = side**2
    positions = -(-count * tokens * HEAD * 2 * side // core.lanes)
    scores, sums = streamed_cycles(core, tokens, HEAD, tokens), streamed_cycles(core, tokens, tokens, HEAD)
    return count * (scores + sums) + positions


def encoder_cycles(core: Core) -> int:
    """Return the cycles of SAM-B's image encoder without the embedding of patches, which the host computes."""
    tokens, width = SIDE**2, 256
    neck = [Part("neck", (tokens, depth, width, 1)) for depth in (CHANNELS, 9 * width)]
    blocks = 8 * parts("window") + 4 * parts("global")
    return sum(baseline_cycles(core, part) for part in blocks + neck)


def section(records: list[dict[str, Any]]) -> list[str]:
    """Lines of the page: time of a block on every routed accelerator and core, and the ratios.

    Parameters
    ----------
    records : list of dict
        Builds for the ECP5, as `fpga_table.py` keeps them; floating-point cores have a ``core``.
    """
    measured = json.loads(BLOCK.read_text()) if BLOCK.is_file() else {}
    best: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: float(record.get("fmax_mhz", 0))):
        best[record["config"]] = record
    best = with_clocks(best)
    cores = {name: Core(**record["core"]) for name, record in best.items() if "core" in record}
    lines = []
    for config in (name for name in best if name in measured):
        for kind, counted in measured[config].items():
            lines += [*table(config, kind, counted, best, cores), ""]
    return lines[:-1]


def by_lanes(records: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Builds of floating-point cores of a format, the most lanes last."""
    cores = [record for record in records if record.get("core", {}).get("format") == kind]
    return sorted(cores, key=lambda record: int(record["core"]["lanes"]))


def with_clocks(best: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Accelerators, and of each format the core with the most lanes, if it is worth a comparison.

    An accelerator that is not routed has the clock of its placement (``as_placed``). A core that was only synthesised
    gets the clock of the largest routed one of its format (``at_most``).
    """
    clocked = {}
    for name, record in best.items():
        if "core" not in record and ("fmax_mhz" in record or "placed_mhz" in record):
            clocked[name] = {"fmax_mhz": record.get("placed_mhz"), "as_placed": "placed_mhz" in record} | record
    for kind in ("fp32", "bf16"):
        cores = by_lanes(best.values(), kind)
        routed = [record for record in cores if "fmax_mhz" in record]
        if routed and cores[-1]["core"]["lanes"] >= FILLING:
            guess = {"fmax_mhz": routed[-1]["fmax_mhz"], "at_most": "fmax_mhz" not in cores[-1]}
            clocked[cores[-1]["config"]] = guess | cores[-1]
    return clocked


def table(
    config: str, kind: str, counted: dict[str, int], best: dict[str, dict[str, Any]], cores: dict[str, Core]
) -> list[str]:
    """Return a table: milliseconds of the parts of a block, and the accelerator's speed-up."""
    clock = {name: float(best[name]["fmax_mhz"]) for name in (config, *cores)}
    most = {name: "at most" if best[name].get("at_most") else "at" for name in (config, *cores)}
    most[config] = "(estimated after placement) at" if best[config].get("as_placed") else "at"
    heads = [f"{name} {most[name]} {clock[name]:.1f} MHz, ms" for name in (config, *cores)]
    heads += [f"faster than {name}" for name in cores]
    dim = named(config).dim
    lines = [
        f"| {kind} block | GMAC | products a cycle and element of `{config}` | {' | '.join(heads)} |",
        "|---" * (len(heads) + 3) + "|",
    ]
    rows = [
        (
            part.name,
            products(part),
            counted[part.name],
            {name: baseline_cycles(core, part) for name, core in cores.items()},
        )
        for part in parts(kind)
    ]
    total = (
        "**all**",
        sum(row[1] for row in rows),
        sum(row[2] for row in rows),
        {name: sum(row[3][name] for row in rows) for name in cores},
    )
    for name, macs, cycles_of_accelerator, others in [*rows, total]:
        time = cycles_of_accelerator / clock[config] / 1e3
        times = {core: count / clock[core] / 1e3 for core, count in others.items()}
        cells = [name, f"{macs / 1e9:.2f}", f"{macs / cycles_of_accelerator / dim**2:.1%}", f"{time:.0f}"]
        cells += [f"{value:.0f}" for value in times.values()] + [f"**{value / time:.2f}**" for value in times.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ecp5_16x16", help="of configs.yaml (default: %(default)s)")
    config = named(parser.parse_args().config)
    blocks: dict[str, dict[str, int]] = {}
    for kind in ("window", "global"):
        blocks[kind] = {}
        for part in parts(kind):
            blocks[kind][part.name] = accelerator_cycles(config, part)
            share = products(part) / blocks[kind][part.name] / config.dim**2
            print(f"{kind} {part.name}: {blocks[kind][part.name]} cycles, {share:.1%} of its products", flush=True)
    recorded: dict[str, Any] = json.loads(BLOCK.read_text()) if BLOCK.is_file() else {}
    BLOCK.write_text(json.dumps(recorded | {config.name: blocks}, indent=1) + "\n")
    print(f"written: {BLOCK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
