"""How busy the array of the Verilated accelerator is in the layers of a SAM-B encoder block.

    python benchmarks/fpga_busy.py --config sim_4x4 --rows 128 --outputs 112

Each GEMM is simulated for its full depth K, for some rows and outputs of it: the program repeats the same loop over row
tiles and sets of outputs. Start and end are included, so whole layers do better. Memory: 8 bytes a cycle, latency 40.
Attention is without relative positions: 196 tokens of 64 channels on 16 x 16; where ``wgt`` is smaller, fewer of both,
with the same work of the vector unit for each product of the array. Results are compared with the model.
Writes ``benchmarks/results/fpga_busy_<config>.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from tvm_ahcq.codegen.device import open_device
from tvm_ahcq.codegen.hardware.attention_tiles import Heads, heads_program
from tvm_ahcq.codegen.hardware.config import Config, named
from tvm_ahcq.codegen.hardware.image import MemoryImage, instruction_count
from tvm_ahcq.codegen.hardware.linear import Linear, linear_program
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.lnq import LnqParams
from tvm_ahcq.quantizers.log_attention import log_attention_constants
from tvm_ahcq.quantizers.uniform import UniformParams

LAYERS = {
    "qkv, 4 groups": (768, 2304, 4),
    "proj": (768, 768, 1),
    "lin1, 4 groups": (768, 3072, 4),
    "lin2": (3072, 768, 1),
}
"""Name -> (K, N, channel groups)."""


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


def heads(config: Config, count: int) -> Heads:
    """Random operands of attention heads of a window that fits."""
    channels = 4 * config.dim
    tokens = min(196, config.wgt_depth // 16)
    rng = np.random.default_rng(0)
    q, k, v = (UniformParams(bits=4, scale=0.2, zero_point=8) for _ in range(3))
    probs = LnqParams(bits=4, alpha=20.0, scale=0.7)
    constants, _, _ = log_attention_constants(q, k, v, probs, scale=channels**-0.5, head_dim=channels)
    return Heads(*rng.integers(0, 16, (3, count, tokens, channels)).astype(np.uint8), constants)


def measure(config: Config, image: MemoryImage, program: bytes) -> tuple[dict[str, int], float]:
    """Counters of a program on the RTL, and cycles a second; memory must be that of the model."""
    start, length = image.place(program), instruction_count(program)
    memory = image.finish()
    with open_device("rtl", config, memory_bytes=len(memory)) as device:
        device.copy_in(0, memory)
        begin = time.perf_counter()
        found = device.run(start, length, 3600)
        seconds = time.perf_counter() - begin
        result, counters = device.copy_out(0, len(memory)), device.counters()
    wanted = Machine(config, memory).run(start, length)
    if found != wanted or result != memory:
        raise DeviceError(f"{config.name}: model and RTL disagree ({wanted} and {found}).")
    return counters, counters["cycles"] / seconds


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sim_4x4", help="of configs.yaml (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=128, help="rows of each GEMM (default: %(default)s)")
    parser.add_argument("--outputs", type=int, default=112, help="outputs of each GEMM (default: %(default)s)")
    parser.add_argument("--heads", type=int, default=0, help="heads of attention; 0 leaves it out (default)")
    options = parser.parse_args()
    config = named(options.config)
    table = [f"# Array of `{config.name}`: share of cycles in which it works", "", f"`{' '.join(sys.argv)}`", ""]
    table += [
        "| layer | simulated | cycles | array busy | bytes loaded a cycle | kcycles/s |",
        "|---|---|---|---|---|---|",
    ]
    cases = []
    for name, (inputs, outputs, groups) in LAYERS.items():
        image = MemoryImage()
        size = min(outputs, options.outputs)
        program, _ = linear_program(config, image, layer(options.rows, inputs, size, groups))
        cases.append((name, f"{options.rows} x {inputs} x {size}", image, program))
    if options.heads:
        image = MemoryImage()
        operands = heads(config, options.heads)
        program, _ = heads_program(config, image, operands, rows=16)
        count, tokens, channels = operands.q.shape
        cases.append(("attention", f"{count} heads, {tokens} x {tokens} x {channels}", image, program))
    for name, size, image, program in cases:
        counters, speed = measure(config, image, program)
        cycles = counters["cycles"]
        table.append(
            f"| {name} | {size} | {cycles} | {counters['array_busy'] / cycles:.1%} "
            f"| {8 * counters['load_chunks'] / cycles:.2f} | {speed / 1e3:.0f} |"
        )
        print(table[-1], flush=True)
    path = Path(__file__).resolve().parent / "results" / f"fpga_busy_{config.name}.md"
    path.write_text("\n".join(table) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
