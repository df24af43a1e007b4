"""Share of cycles in which the array of the accelerator is busy, in the layers of a SAM-B encoder block.

    python benchmarks/fpga_busy.py --config ecp5_16x16 --rows 512

Each operator is lowered as the compiler lowers it and runs on the functional simulator, which counts cycles; a shorter
one of the same kind runs on it and on the Verilated RTL: memory and every counter are compared. Linear layers have
their full depth K; rows and outputs can be cut, as a program repeats one loop over tiles of both. Start and end are
included. Linear layers give accumulators, as they do where MLPs are not chained. Attention has relative positions:
windows of 14 x 14 tokens, and one head over a picture of 64 x 64; an array of 4 x 4 takes what its scratchpads hold.
Where an operator takes several runs of its program, one is simulated, and cycles are those of all. Memory: a beat of
the bus in a cycle, latency 40.

Writes ``benchmarks/results/fpga_busy_<config>.md``; exits with 1 if RTL and functional simulator disagree.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.lower.attention.operator import lower_attention
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.linear.operator import lower_linear
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.standalone import packed_inputs, standalone
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.runtime.weights import QLinearWeight

LAYERS = {
    "qkv, 4 groups": (768, 2304, 4),
    "proj": (768, 768, 1),
    "lin1, 4 groups": (768, 3072, 4),
    "lin2": (3072, 768, 1),
}
"""Name -> (K, N, channel groups)."""


@dataclass(frozen=True)
class Attention:
    """Heads over pictures with relative positions; `shorter` is a smaller one of the same kind for the RTL.

    Attributes
    ----------
    heads, shorter_heads : int
        Heads of all pictures (windows).
    sides, shorter_sides : (int, int)
        Height and width of a picture.
    channels : int
        Channels of a head.
    """

    heads: int
    sides: tuple[int, int]
    channels: int
    shorter_heads: int
    shorter_sides: tuple[int, int]


ATTENTIONS = {
    4: {
        "window attention": Attention(25, (12, 12), 16, 3, (12, 12)),
        "global attention": Attention(1, (32, 32), 16, 1, (16, 16)),
    },
    16: {
        "window attention": Attention(25, (14, 14), 64, 3, (14, 14)),
        "global attention": Attention(1, (64, 64), 64, 1, (16, 64)),
    },
    32: {
        "window attention": Attention(25, (14, 14), 64, 3, (14, 14)),
        "global attention": Attention(1, (64, 64), 64, 1, (16, 64)),
    },
}
"""Dim -> name -> sizes."""

SHORT_ROWS = 128
"""Rows of a shorter linear layer."""


@dataclass(frozen=True)
class Case:
    """An operator, and a shorter one of the same kind for the RTL."""

    name: str
    size: str
    operator: Callable[[], OffloadedOp]
    shorter: Callable[[], OffloadedOp]


def linear(config: Config, rows: int, inputs: int, outputs: int, groups: int) -> OffloadedOp:
    """Return a linear layer with random weights."""
    rng = np.random.default_rng(0)
    weight = QLinearWeight(
        codes=rng.integers(0, 16, (outputs, inputs)).astype(np.uint8),
        bits=4,
        scale=rng.uniform(1e-4, 1e-3, outputs).astype(np.float32),
        zero_point=np.full(outputs, 8, np.uint8),
        index=np.arange(inputs, dtype=np.int32),
        group_sizes=(inputs // groups,) * groups,
        group_scale=np.ones(groups, np.float32),
        group_zero_point=rng.integers(0, 16, groups).astype(np.int32),
    )
    return lower_linear(config, rows, LinearLayer(weight, rng.normal(size=outputs).astype(np.float32)))


def attention(config: Config, heads: int, sides: tuple[int, int], channels: int) -> OffloadedOp:
    """Return an attention with random tables of relative positions."""
    rng, tokens = np.random.default_rng(0), sides[0] * sides[1]
    q, k, v = (UniformParams(bits=4, scale=0.2, zero_point=8) for _ in range(3))
    quantizers = AttentionQuantizers(q, k, v, RowRelativeParams(bits=4, alpha=20.0))
    tables = [rng.normal(size=(2 * side - 1, channels)) for side in sides]
    numbers = attention_constants(quantizers, scale=channels**-0.5, head_dim=channels, rel_h=tables[0], rel_w=tables[1])
    return lower_attention(config, (heads, tokens, tokens, channels), *numbers)


def cases(config: Config, rows: int, outputs: int) -> list[Case]:
    """Return the operators that are measured on a configuration."""
    measured = []
    for name, (inputs, size, groups) in LAYERS.items():
        columns = min(size, outputs)
        make = partial(linear, config, inputs=inputs, outputs=columns, groups=groups)
        shape = f"{rows} x {inputs} x {columns}"
        measured.append(Case(name, shape, partial(make, rows=rows), partial(make, rows=min(rows, SHORT_ROWS))))
    for name, sizes in ATTENTIONS.get(config.dim, {}).items():
        height, width = sizes.sides
        shape = f"{sizes.heads} heads, {height} x {width} queries and keys, {sizes.channels} channels"
        operator = partial(attention, config, sizes.heads, sizes.sides, sizes.channels)
        shorter = partial(attention, config, sizes.shorter_heads, sizes.shorter_sides, sizes.channels)
        measured.append(Case(name, shape, operator, shorter))
    return measured


@dataclass(frozen=True)
class Placed:
    """A program in memory."""

    memory: bytes
    start: int
    length: int

    @classmethod
    def of(cls, operator: OffloadedOp) -> Placed:
        """Return the program of an operator, with random codes as its inputs."""
        rng, program = np.random.default_rng(1), standalone(operator.memory, operator.program)
        shapes = [(given.batch * given.rows, given.channels) for given in operator.inputs]
        codes = [rng.integers(0, 16, shape).astype(np.uint8) for shape in shapes]
        return cls(bytes(program.image(packed_inputs(operator, *codes))), program.start, program.length)


def run(config: Config, backend: str, program: Placed, estimate: bool = True) -> tuple[bytes, dict[str, int], float]:
    """Return memory, counters and CPU seconds of a program."""
    size = len(program.memory)
    with open_device(backend, config, memory_bytes=size, threads=1, estimate=estimate) as device:
        device.copy_in(0, program.memory)
        begin = time.process_time()
        result = device.run(program.start, program.length, 3600)
        seconds = time.process_time() - begin
        if result.error != "none":
            raise DeviceError(f"{config.name}: {backend} ends with {result}.")
        return device.copy_out(0, size), device.counters(), seconds


def cycles(config: Config, operator: OffloadedOp) -> int:
    """Return the cycles of all runs of an operator on the functional simulator."""
    return operator.runs * run(config, "fsim", Placed.of(operator))[1]["cycles"]


def measure(config: Config, case: Case, rtl: bool) -> str:
    """Return a row of the table."""
    operator = case.operator()
    program = Placed.of(operator)
    _, counters, both = run(config, "fsim", program)
    _, _, blind = run(config, "fsim", program, estimate=False)
    cycles, products = counters["cycles"], counters["array_busy"] * config.dim**2 / 1e9
    speed, clock = products / blind, cycles / 1e6 / (both - blind)
    cells = [
        case.name,
        case.size,
        operator.runs * cycles,
        f"{counters['array_busy'] / cycles:.1%}",
        f"{counters['vector_busy'] / cycles:.0%}",
        f"{8 * counters['load_chunks'] / cycles:.2f}",
        f"{8 * counters['store_chunks'] / cycles:.2f}",
        f"{speed:.1f}",
        f"{clock:.1f}",
        f"{min(speed, products / (both - blind)):.1f}",
    ]
    cells += compare(config, case) if rtl else [""] * 4
    return f"| {' | '.join(map(str, cells))} |"


def compare(config: Config, case: Case) -> list[str]:
    """Return cells of the table about the shorter operator on RTL and functional simulator.

    Raises
    ------
    DeviceError
        If memory, or a counter that does not depend on time, differs.
    """
    program = Placed.of(case.shorter())
    memory, counters, seconds = run(config, "rtl", program)
    expected, estimate, _ = run(config, "fsim", program)
    if memory != expected:
        raise DeviceError(f"{config.name}: memory of RTL and functional simulator differs after {case.name}.")
    count = counters["cycles"]
    equal = sum(counters[name] == estimate[name] for name in counters)
    return [
        str(count),
        f"{estimate['cycles'] / count - 1:+.2%}",
        f"{equal}/{len(counters)}",
        f"{count / seconds / 1e3:.0f}",
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
        "Speeds are by CPU time, on a machine that did other work as well.",
        "",
        "| layer | operator | cycles | array busy | vector busy | bytes loaded a cycle | bytes stored a cycle "
        "| fsim: GMAC of a CPU second | Mcycles of a CPU second | GMAC/s of two CPUs "
        "| shorter operator: RTL cycles | fsim cycles off by | counters equal | RTL kcycles of a CPU second |",
        "|---" * 14 + "|",
    ]
    print("\n".join(table), flush=True)
    failed = False
    for case in cases(config, options.rows, options.outputs):
        try:
            table.append(measure(config, case, not options.no_rtl))
        except DeviceError as error:
            table.append(f"| {case.name} | {error} |" + " |" * 12)
            failed = failed or "differs" in str(error)
        print(table[-1], flush=True)
    path = Path(__file__).resolve().parent / "results" / f"fpga_busy_{config.name}.md"
    path.write_text("\n".join(table) + "\n")
    print(f"written: {path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
