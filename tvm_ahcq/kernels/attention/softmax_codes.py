"""Operand coders of log-domain attention: from base-2 logits to the table operands of probability codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.target import HostTarget

PADDING = -(2**30)
"""Logit of lanes that pad a vector: the probability and the operand are exactly 0, and nothing overflows."""

_LINEAR = 32
"""Largest number of thresholds for which comparing with each one beats a binary search."""


def reduce_vector(name: str, x: Expr) -> Expr:
    """LLVM's reduction `name` over an int32x16."""
    return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.{name}.v{LANES}i32", x)


def _permute(table: Expr, index: Expr) -> Expr:
    """``table[index]`` in every lane; both are int32x16."""
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.permvar.si.512", table, index)


@T.inline
def relative_logits(dots, logits, r, row, h, w):
    """Spread the products of query `row` with relative positions over the keys: ``logits[r, y' * w + x']``."""
    by_column = T.alloc_buffer((w,), "int32", scope="local")
    for x in range(w):
        by_column[x] = dots[r, 2 * h - 1 + row % w - x + w - 1]
    for y in range(h):
        for x in range(w):
            logits[r, y * w + x] = dots[r, row // w - y + h - 1] + by_column[x]


@dataclass(frozen=True)
class CoderBuffers:
    """Buffers that an operand coder reads.

    Attributes
    ----------
    scratch : Buffer
        int32, filled by the coder's `prepare`.
    thresholds, table : Buffer
        Arguments of the kernel.
    """

    scratch: Buffer
    thresholds: Buffer
    table: Buffer


@dataclass(frozen=True)
class OperandCoder:
    """Inline functions that turn logits into probability operands.

    Attributes
    ----------
    scratch : int
        int32 elements that `prepare` fills, once for several rows.
    prepare : callable
        Inline function of :class:`CoderBuffers`.
    encode : callable
        Inline function ``(buffers, logits, offset, operands)``: the operands of 16 `logits`, an int32x16 expression, to
        ``operands[0]``, int32x16 too. ``offset[0]`` is the ``c`` of ``-log2(p) = c - logit``.
    """

    scratch: int
    prepare: Callable[..., None]
    encode: Callable[..., None]


def _permuting(n: int) -> OperandCoder:
    """Up to 15 thresholds, which fit in one register, AVX-512 only: a binary search by lane permutation."""

    @T.inline
    def prepare(buffers):
        # lane c of the first register holds threshold c - 1, so that lane and code agree
        buffers.scratch[0] = 0
        for t in range(LANES - 1):
            buffers.scratch[1 + t] = T.if_then_else(t < n, buffers.thresholds[T.min(t, n - 1)], T.int32(-(2**31)))
        for t in range(LANES):
            buffers.scratch[LANES + t] = T.cast(buffers.table[T.min(t, n)], "int32")

    @T.inline
    def encode(buffers, logits, offset, operands):
        operands[0] = T.broadcast(0, LANES)
        for s in T.unroll(4):
            operands[0] = operands[0] + T.Select(
                _permute(buffers.scratch[T.ramp(0, 1, LANES)], operands[0] + T.broadcast(T.shift_right(8, s), LANES))
                >= T.broadcast(offset[0], LANES) - logits,
                T.broadcast(T.shift_right(8, s), LANES),
                T.broadcast(0, LANES),
            )
        operands[0] = _permute(buffers.scratch[T.ramp(LANES, 1, LANES)], operands[0])

    return OperandCoder(2 * LANES, prepare, encode)


def _comparing(n: int) -> OperandCoder:
    """A comparison with every threshold; each one passed adds the step from one operand to the next."""

    @T.inline
    def prepare(buffers):
        for t in range(n):
            buffers.scratch[t] = T.cast(buffers.table[t + 1], "int32") - T.cast(buffers.table[t], "int32")

    @T.inline
    def encode(buffers, logits, offset, operands):
        operands[0] = T.broadcast(T.cast(buffers.table[0], "int32"), LANES)
        for t in range(n):
            operands[0] = operands[0] + T.Select(
                T.broadcast(offset[0] - buffers.thresholds[t], LANES) <= logits,
                T.broadcast(buffers.scratch[t], LANES),
                T.broadcast(0, LANES),
            )

    return OperandCoder(n, prepare, encode)


def _searching(n: int) -> OperandCoder:
    """A binary search in every lane, only where not every key of a vector is below the lowest threshold."""
    steps = n.bit_length()

    def bit(s: Expr) -> Expr:
        """The bit of the code that step `s` decides, from the highest down, in every lane."""
        return T.broadcast(T.shift_right(T.int32(1 << (steps - 1)), s), LANES)

    @T.inline
    def prepare(buffers):
        buffers.scratch[0] = 0  # nothing to prepare: TVM has no gather from memory that a kernel allocates

    @T.inline
    def encode(buffers, logits, offset, operands):
        operands[0] = T.broadcast(0, LANES)  # the code, and its operand, where the search does not begin
        if reduce_vector("smax", logits) >= offset[0] - buffers.thresholds[0]:
            for s in T.unroll(steps):
                operands[0] = operands[0] + T.Select(
                    T.And(
                        operands[0] + bit(s) <= T.broadcast(n, LANES),
                        buffers.thresholds[T.min(operands[0] + bit(s), T.broadcast(n, LANES)) - T.broadcast(1, LANES)]
                        >= T.broadcast(offset[0], LANES) - logits,
                    ),
                    bit(s),
                    T.broadcast(0, LANES),
                )
            operands[0] = T.cast(buffers.table[operands[0]], "int32x16")

    return OperandCoder(1, prepare, encode)


def operand_coder(n: int, target: HostTarget) -> OperandCoder:
    """The fastest coder for `n` thresholds on `target`."""
    if n < LANES and "avx512f" in target.cpu_features:
        return _permuting(n)
    return _comparing(n) if n <= _LINEAR else _searching(n)
