"""Speed of each kernel on one core, as a fraction of a loop of nothing but its multiply instruction.

Run ``python benchmarks/kernels.py``; it prints a table and writes benchmarks/results/kernels.md. Shared machines slow
down for seconds at a time: so kernel and peak loop take turns, time is processor time, and the fraction is the median
over the turns.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

os.environ["TVM_NUM_THREADS"] = "1"  # read when TVM is loaded

import tvm
from rich.console import Console
from rich.table import Table

from tvm_ahcq import kernels
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.kernels.peak import PeakLoop, peak_loops
from tvm_ahcq.target import HostTarget, resolve_target

ROUNDS = 7
RESULTS = Path(__file__).parent / "results" / "kernels.md"


@dataclass(frozen=True)
class Case:
    """A kernel with its arguments (the last one is the output), and the multiply-adds that it has to do."""

    name: str
    shape: str
    func: tvm.tirx.PrimFunc
    arguments: tuple[np.ndarray, ...]
    macs: int
    unit: str


def empty(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """An output for a kernel to fill."""
    return np.zeros(shape, dtype)


def linear_cases(rng: np.random.Generator, target: HostTarget) -> list[Case]:
    """The four linear layers of a SAM-B block, and the neck's 3x3 convolution as a product."""
    cases = []
    for m, n, k, groups in [
        (4096, 2304, 768, 4),
        (4096, 768, 768, 4),
        (4096, 3072, 768, 1),
        (4096, 768, 3072, 1),
        (4096, 256, 2304, 1),
    ]:
        shape = (-(-n // 16), k // 4, 16, 4) if target.layout == "vnni16" else (n, k)
        arguments = (
            rng.integers(0, 16, (m, k), dtype=np.uint8),
            rng.integers(-8, 8, shape).astype(np.int8),
            np.arange(0, k + 1, k // groups, dtype=np.int32),
            np.ones((groups, n), np.float32),
            np.ones((groups, n), np.int32),
            np.zeros(n, np.float32),
            empty((m, n)),
        )
        func = kernels.grouped_linear(m, LinearWorkload(n, k, groups, 4, 15), target.layout, target)
        cases.append(Case("grouped_linear", f"{m} x {n} x {k}, {groups} groups", func, arguments, m * n * k, "int8"))
    return cases


def attention_cases(rng: np.random.Generator, target: HostTarget) -> list[Case]:
    """Global, windowed, and decoder attention; logits spread over a few powers of two."""
    cases = []
    for heads, nq, nk, d, grid in [
        (12, 4096, 4096, 64, (64, 64)),
        (300, 196, 196, 64, (14, 14)),
        (8, 4096, 7, 16, None),
        (8, 7, 4096, 16, None),
    ]:
        q, k, v = (rng.integers(0, 16, (heads, tokens, d), dtype=np.uint8) for tokens in (nq, nk, nk))
        rel = [rng.integers(-128, 128, (2 * side - 1, d)).astype(np.int8) for side in grid or ()]
        arguments = (
            q,
            k,
            v,
            *rel,
            np.array([7, 8, 7, 0, 2, 1800, 120, 120, 8], np.int32),
            np.linspace(14, 0.2, 15).astype(np.int32) * 1024,
            np.arange(0, 256, 17, dtype=np.uint8),
            np.ones(1, np.float32),
            empty(q.shape),
        )
        func = kernels.log_attention(AttentionShape(heads, nq, nk, d, grid, 15, bits=4), target)
        shape = f"{heads} heads, {nq} x {nk} x {d}{', relative' if grid else ''}"
        cases.append(Case("log_attention", shape, func, arguments, 2 * heads * nq * nk * d, "int8"))
    return cases


def other_cases(rng: np.random.Generator, target: HostTarget) -> list[Case]:
    """The float32 product, and kernels that are bound by memory or by vector work."""
    m, n, k = 4096, 768, 768
    x, wide = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(m, 4 * k)).astype(np.float32)
    one, bounds = np.ones(4, np.float32), np.arange(0, k + 1, 192, dtype=np.int32)
    order = rng.permutation(k).astype(np.int32)
    codes = rng.integers(0, 16, (1, 64, 64, 256), dtype=np.uint8)
    return [
        Case(
            "matmul",
            f"{m} x {n} x {k}",
            kernels.matmul(m, n, k, target),
            (x, rng.normal(size=(n, k)).astype(np.float32), empty((n,)), empty((m, n))),
            m * n * k,
            "float32",
        ),
        Case("layer_norm", f"{m} x {k}", kernels.layer_norm(m, k, 1e-6), (x, x[0], x[1], empty((m, k))), 0, ""),
        Case(
            "encode_affine",
            f"{m} x {k}, ordered",
            kernels.encode_affine(m, k, k, 4, 4, True),
            (x, bounds, one, np.ones(4, np.int32), empty((m, k), "uint8")),
            0,
            "",
        ),
        Case(
            "encode_affine",
            f"{m} x {k}, gathered",
            kernels.encode_affine(m, k, k, 4, 4, False),
            (x, order, bounds, one, np.ones(4, np.int32), empty((m, k), "uint8")),
            0,
            "",
        ),
        Case(
            "encode_intervals",
            f"{m} x {4 * k}, 15 thresholds",
            kernels.encode_intervals(m, 4 * k, 15),
            (wide, np.linspace(-2, 2, 15, dtype=np.float32), np.arange(16, dtype=np.uint8), empty((m, 4 * k), "uint8")),
            0,
            "",
        ),
        Case(
            "im2col",
            "64 x 64 x 256, 3 x 3",
            kernels.im2col(1, 64, 64, 256, 3),
            (codes, np.zeros(1, np.int32), empty((1, 64, 64, 2304), "uint8")),
            0,
            "",
        ),
    ]


def seconds(run: Callable[[], object]) -> float:
    """Processor time of this thread, which does all the work."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def measure(case: Case, target: HostTarget, loops: dict[str, PeakLoop]) -> tuple[str, ...]:
    """Name, shape, milliseconds, GMAC/s and fraction of the peak."""
    kernel = tvm.compile(case.func, target=target.tvm_target())
    run = partial(kernel, *map(tvm.runtime.tensor, case.arguments))
    run()
    loop = loops.get(case.unit)
    times = [(seconds(run), seconds(loop.run) if loop else 0.0) for _ in range(ROUNDS)]
    best = min(kernel_time for kernel_time, _ in times)
    fraction = statistics.median(case.macs / a / (loop.macs / b) for a, b in times) if loop else None
    rate = f"{case.macs / best / 1e9:.0f}" if case.macs else ""
    return case.name, case.shape, f"{best * 1e3:.2f}", rate, "" if fraction is None else f"{fraction:.2f}"


def main() -> None:
    """Measure every kernel, print the table and write it to ``results/kernels.md``."""
    target, rng = resolve_target("native"), np.random.default_rng(0)
    loops = peak_loops(target)
    cases = [*linear_cases(rng, target), *attention_cases(rng, target), *other_cases(rng, target)]
    rows = [measure(case, target, loops) for case in cases]
    header = ("kernel", "shape", "ms", "GMAC/s", "of peak")
    title = f"target {target.name}, one core, {platform.machine()}"
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    lines = [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
    note = (
        "Peak: a loop of nothing but vpdpbusd, with AVX2 vpmaddubsw (int8), or fused multiply-adds (float32), run in "
        "turn with the kernel."
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join([f"# Kernels: {title}", "", note, "", *lines, ""]))


if __name__ == "__main__":
    main()
