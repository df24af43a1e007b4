"""How busy the array of the accelerator is in the layers of a SAM-B encoder block; cycles of fsim against the RTL.

    python benchmarks/fpga_busy.py --config ecp5_16x16 --rows 512

Each program runs on the functional simulator, which counts cycles, and a shorter one of the same kind on it and on the
Verilated RTL: memory and every counter are compared. GEMMs have their full depth K; rows and outputs can be cut, as the
program repeats one loop over tiles of both. Start and end are included. Attention has relative positions: windows of
14 x 14 tokens, and a picture of 64 x 64 of which only some tiles of queries are computed, each against all 4096 keys;
an array of 4 x 4 takes what its scratchpads hold. Memory: a beat of the bus in a cycle, latency 40.

Writes ``benchmarks/results/fpga_busy_<config>.md``; exits with 1 if RTL and functional simulator disagree.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.hardware.linear import Linear, linear_program
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.isa.memory_image import MemoryImage, instruction_count
from tvm_ahcq.codegen.lower.attention.plan import PictureHeads
from tvm_ahcq.codegen.lower.attention.stream import stream_program
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams

LAYERS = {
    "qkv, 4 groups": (768, 2304, 4),
    "proj": (768, 768, 1),
    "lin1, 4 groups": (768, 3072, 4),
    "lin2": (3072, 768, 1),
}
"""Name -> (K, N, channel groups)."""

PICTURES = {
    4: {"window attention": ((12, 12), 12, 16), "global attention": ((32, 32), 4, 16)},
    16: {"window attention": ((14, 14), 28, 64), "global attention": ((64, 64), 16, 64)},
    32: {"window attention": ((14, 14), 28, 64), "global attention": ((64, 64), 32, 64)},
}
"""Dim -> name -> (height and width, queries of a tile, channels of a head)."""


@dataclass(frozen=True)
class Case:
    """A program of which `make` places any number of pieces (rows, heads or tiles) into an image."""

    name: str
    make: Callable[[MemoryImage, int], tuple[bytes, str]]
    pieces: int
    rtl_pieces: int


def layer(rows: int, inputs: int, outputs: int, groups: int) -> Linear:
    """Random operands of a linear layer."""
    rng = np.random.default_rng(0)
    return Linear(
        codes=rng.integers(0, 16, (rows, inputs)).astype(np.uint8),
        weight=rng.integers(0, 16, (outputs, inputs)).astype(np.uint8),
        zero=rng.integers(0, 16, outputs).astype(np.uint8),
        group_sizes=(inputs // groups,) * groups,
        tables=np.arange(16) - rng.integers(0, 16, (groups, 1)),
        multiplier=rng.uniform(1e-4, 1e-3, (groups, outputs)),
        bias=rng.normal(size=outputs),
        fraction_bits=12,
        thresholds=np.sort(rng.integers(-(2**14), 2**14, 15)).astype(np.int32),
        out_codes=np.arange(16),
    )


def picture(count: int, sides: tuple[int, int], channels: int) -> PictureHeads:
    """Random operands of heads with relative positions."""
    rng = np.random.default_rng(0)
    q, k, v = (UniformParams(bits=4, scale=0.2, zero_point=8) for _ in range(3))
    tables = [rng.normal(size=(2 * side - 1, channels)) for side in sides]
    constants, rel_h, rel_w = attention_constants(
        AttentionQuantizers(q, k, v, LnqParams(bits=4, alpha=20.0, scale=0.7)),
        scale=channels**-0.5,
        head_dim=channels,
        rel_h=tables[0],
        rel_w=tables[1],
    )
    codes = rng.integers(0, 16, (3, count, sides[0] * sides[1], channels)).astype(np.uint8)
    return PictureHeads(codes[0], codes[1], codes[2], constants, sides, rel_h, rel_w)


def cases(config: Config, rows: int, outputs: int) -> list[Case]:
    """What is measured on a configuration."""
    found = []
    for name, (inputs, size, groups) in LAYERS.items():
        found.append(Case(name, linear_maker(config, inputs, min(size, outputs), groups), rows, min(rows, 128)))
    for name, (sides, tile, channels) in PICTURES.get(config.dim, {}).items():
        whole = name.startswith("global")
        make = picture_maker(config, sides, tile, channels, whole)
        found.append(Case(name, make, 48 if whole else 25, 6 if whole else 3))
    return found


def linear_maker(
    config: Config, inputs: int, outputs: int, groups: int
) -> Callable[[MemoryImage, int], tuple[bytes, str]]:
    """Programs of some rows of a layer."""

    def make(image: MemoryImage, rows: int) -> tuple[bytes, str]:
        return linear_program(config, image, layer(rows, inputs, outputs, groups))[0], f"{rows} x {inputs} x {outputs}"

    return make


def picture_maker(
    config: Config, sides: tuple[int, int], tile: int, channels: int, whole: bool
) -> Callable[[MemoryImage, int], tuple[bytes, str]]:
    """Programs of some heads, or of some tiles of one head."""

    def make(image: MemoryImage, pieces: int) -> tuple[bytes, str]:
        heads = picture(1 if whole else pieces, sides, channels)
        program, _ = stream_program(config, image, heads, tile, pieces if whole else None)
        tokens = sides[0] * sides[1]
        size = f"{tile * pieces} of {tokens}" if whole else f"{pieces} heads, {tokens}"
        return program, f"{size} queries, {tokens} keys, {channels} channels"

    return make


def run(
    config: Config, backend: str, memory: bytearray, start: int, length: int, estimate: bool = True
) -> tuple[bytes, dict[str, int], float]:
    """Memory, counters and CPU seconds of a program."""
    with open_device(backend, config, memory_bytes=len(memory), threads=1, estimate=estimate) as device:
        device.copy_in(0, memory)
        begin = time.process_time()
        result = device.run(start, length, 3600)
        seconds = time.process_time() - begin
        if result.error != "none":
            raise DeviceError(f"{config.name}: {backend} ends with {result}.")
        return device.copy_out(0, len(memory)), device.counters(), seconds


def measure(config: Config, case: Case, rtl: bool) -> str:
    """A row of the table."""
    image = MemoryImage()
    program, size = case.make(image, case.pieces)
    start, length = image.place(program), instruction_count(program)
    memory = image.finish()
    _, counters, both = run(config, "fsim", memory, start, length)
    _, _, blind = run(config, "fsim", memory, start, length, estimate=False)
    cycles, products = counters["cycles"], counters["array_busy"] * config.dim**2 / 1e9
    speed, clock = products / blind, cycles / 1e6 / (both - blind)
    cells = [
        case.name,
        size,
        cycles,
        f"{counters['array_busy'] / cycles:.1%}",
        f"{counters['vector_busy'] / cycles:.0%}",
        f"{8 * counters['load_chunks'] / cycles:.2f}",
        f"{speed:.1f}",
        f"{clock:.1f}",
        f"{min(speed, products / (both - blind)):.1f}",
    ]
    cells += compare(config, case) if rtl else [""] * 4
    return f"| {' | '.join(map(str, cells))} |"


def compare(config: Config, case: Case) -> list[str]:
    """Cells of the table about a shorter program on RTL and functional simulator.

    Raises
    ------
    DeviceError
        If memory, or a counter that does not depend on time, differs.
    """
    image = MemoryImage()
    program, _ = case.make(image, case.rtl_pieces)
    start, length = image.place(program), instruction_count(program)
    memory = image.finish()
    found, counters, seconds = run(config, "rtl", memory, start, length)
    wanted, estimate, _ = run(config, "fsim", memory, start, length)
    if found != wanted:
        raise DeviceError(f"{config.name}: memory of RTL and functional simulator differs after {case.name}.")
    cycles = counters["cycles"]
    equal = sum(counters[name] == estimate[name] for name in counters)
    return [
        str(cycles),
        f"{estimate['cycles'] / cycles - 1:+.2%}",
        f"{equal}/{len(counters)}",
        f"{cycles / seconds / 1e3:.0f}",
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sim_4x4", help="of configs.yaml (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=256, help="rows of each GEMM (default: %(default)s)")
    parser.add_argument("--outputs", type=int, default=4096, help="outputs of each GEMM, at most (default: all)")
    parser.add_argument("--no-rtl", action="store_true", help="functional simulator only")
    options = parser.parse_args()
    config = named(options.config)
    table = [
        f"# Array of `{config.name}`: share of cycles in which it works",
        "",
        f"`{' '.join(sys.argv)}`",
        "",
        "fsim computes with one thread and counts cycles with another; with two CPUs the slower decides.",
        "",
        "| layer | simulated | cycles | array busy | vector busy | bytes loaded a cycle "
        "| fsim: GMAC of a CPU second | Mcycles of a CPU second | GMAC/s of two CPUs "
        "| shorter program: RTL cycles | fsim cycles off by | counters equal | RTL kcycles of a CPU second |",
        "|---" * 13 + "|",
    ]
    print("\n".join(table), flush=True)
    failed = False
    for case in cases(config, options.rows, options.outputs):
        try:
            table.append(measure(config, case, not options.no_rtl))
        except DeviceError as error:
            table.append(f"| {case.name} | {error} |" + " |" * 11)
            failed = failed or "differs" in str(error)
        print(table[-1], flush=True)
    path = Path(__file__).resolve().parent / "results" / f"fpga_busy_{config.name}.md"
    path.write_text("\n".join(table) + "\n")
    print(f"written: {path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
