"""Peak multiply rate of a core: loops of its multiply instruction alone, to measure kernels against."""

# TVMScript writes buffers as calls where Python has types.
# mypy: disable-error-code="valid-type"

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import tvm
from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.avx2 import dot_bytes, pair_products
from tvm_ahcq.kernels.common.vector import fma, vpdpbusd
from tvm_ahcq.kernels.gemm.amx import AMX, TILE_BYTES, configure, dots, zero_sums
from tvm_ahcq.target import HostTarget

CHAINS = 24
"""Independent sums of a loop, enough to hide the latency of the instruction."""

_AVX2_CHAINS = 12
"""As `CHAINS`, as many as fit in 16 registers."""

STEPS = 1_500_000


@dataclass(frozen=True)
class PeakLoop:
    """A compiled loop.

    Attributes
    ----------
    run : callable
        Runs it once, on the calling thread.
    macs : int
        Multiply-adds of one run.
    """

    run: Callable[[], object]
    macs: int

    def rate(self, repeats: int = 3) -> float:
        """Multiply-adds a second of processor time: the best of some runs."""
        times = []
        for _ in range(repeats):
            start = time.thread_time()
            self.run()
            times.append(time.thread_time() - start)
        return self.macs / min(times)


def _loop(instruction: Callable, acc: str, operands: tuple[str, str], size: int, chains: int) -> tvm.tirx.PrimFunc:
    """`chains` independent sums of `instruction`; a register has `size` bytes."""

    @T.prim_func(s_tir=True)
    def main(seed: T.Buffer((64,), "uint8"), out: T.Buffer((CHAINS, 64), "uint8")):
        T.func_attr({"tirx.noalias": True})
        sums = T.alloc_buffer((chains,), acc, scope="local")
        for i in T.unroll(chains):
            sums[i] = T.reinterpret(acc, seed[T.ramp(0, 1, size)])
        for _ in range(STEPS):
            for i in T.unroll(chains):
                sums[i] = instruction(
                    sums[i],
                    T.reinterpret(operands[0], seed[T.ramp(0, 1, size)]),
                    T.reinterpret(operands[1], seed[T.ramp(0, 1, size)]),
                )
        for i in T.unroll(chains):
            out[i, T.ramp(0, 1, size)] = T.reinterpret(f"uint8x{size}", sums[i])

    return main


def _tile_loop() -> tvm.tirx.PrimFunc:
    """Four independent tiles of sums."""

    @T.prim_func(s_tir=True)
    def main(seed: T.Buffer((64,), "uint8"), out: T.Buffer((CHAINS, 64), "uint8")):
        T.func_attr({"tirx.noalias": True})
        config = T.alloc_buffer((64,), "uint8")
        configure(config, AMX)
        zero_sums(AMX)
        T.evaluate(AMX.load(4, T.address_of(seed[0]), 0))
        T.evaluate(AMX.load(5, T.address_of(seed[0]), 0))
        T.evaluate(AMX.load(6, T.address_of(seed[0]), 0))
        T.evaluate(AMX.load(7, T.address_of(seed[0]), 0))
        for _ in range(STEPS):
            dots(AMX)
        T.evaluate(AMX.store(0, T.address_of(out[0, 0]), TILE_BYTES))

    return main


def _avx2_loops() -> dict[str, tuple[tvm.tirx.PrimFunc, int]]:
    """Products of bytes in pairs have no sum among their operands: each takes the one before as an operand."""

    def multiply(c: Expr, _a: Expr, b: Expr) -> Expr:
        return pair_products(T.reinterpret("uint8x32", c), b)

    float_loop = _loop(lambda c, a, b: fma(a, b, c, 8), "float32x8", ("float32x8", "float32x8"), 32, _AVX2_CHAINS)
    int8_loop = _loop(multiply, "int16x16", ("uint8x32", "int8x32"), 32, _AVX2_CHAINS)
    return {"float32": (float_loop, 8 * _AVX2_CHAINS * STEPS), "int8": (int8_loop, 32 * _AVX2_CHAINS * STEPS)}


def peak_loops(target: HostTarget) -> dict[str, PeakLoop]:
    """Loops for the units "int8" and "float32"; without those whose instruction is not known.

    The AMX loop needs the permission of :func:`tvm_ahcq.runtime.cpu.request_amx`.
    """
    loops: dict[str, tuple[tvm.tirx.PrimFunc, int]] = {}
    if "avx512f" in target.cpu_features:
        float_loop = _loop(lambda c, a, b: fma(a, b, c), "float32x16", ("float32x16", "float32x16"), 64, CHAINS)
        loops["float32"] = float_loop, 16 * CHAINS * STEPS
    if target.isa == "avx512vnni":
        loops["int8"] = _loop(vpdpbusd, "int32x16", ("uint8x64", "int8x64"), 64, CHAINS), 64 * CHAINS * STEPS
    if target.isa == "amx":
        loops["int8"] = _tile_loop(), 4 * 16 * 16 * 64 * STEPS
    if target.isa in ("avx2", "avxvnni"):
        loops = _avx2_loops()
    if target.isa == "avxvnni":
        int8_loop = _loop(dot_bytes, "int32x8", ("uint8x32", "int8x32"), 32, _AVX2_CHAINS)
        loops["int8"] = int8_loop, 32 * _AVX2_CHAINS * STEPS
    return {unit: _compiled(loop, macs, target) for unit, (loop, macs) in loops.items()}


def _compiled(loop: tvm.tirx.PrimFunc, macs: int, target: HostTarget) -> PeakLoop:
    seed = tvm.runtime.tensor(np.zeros(64, np.uint8))
    out = tvm.runtime.tensor(np.zeros((CHAINS, 64), np.uint8))
    return PeakLoop(partial(tvm.compile(loop, target=target.tvm_target()), seed, out), macs)
