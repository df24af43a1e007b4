"""The part of log-domain attention between the two matrix products: one row of logits to probability operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.fixed_point import exp2_fixed, log2_fixed
from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.target import HostTarget

PADDING = -(2**30)
"""Logit of keys that only fill up a vector: the probability and the operand are exactly 0, and nothing overflows."""

_LINEAR = 32
"""Up to so many thresholds, comparing with every one of them in vectors beats a binary search."""


def reduce_vector(name: str, x: Expr) -> Expr:
    """LLVM's reduction `name` over an int32x16."""
    return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.{name}.v{LANES}i32", x)


def _permute(table: Expr, index: Expr) -> Expr:
    """``table[index]`` in every lane; both are int32x16."""
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.permvar.si.512", table, index)


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of an attention kernel.

    Attributes
    ----------
    heads, rows, tokens : int or Expr
        Batch times heads, queries, keys; shape variables of the kernel where they are not constant.
    d : int
        Channels of a head.
    grid : (int, int) or None
        Height and width, where there are relative positions.
    n_thresholds : int
        Thresholds between the probability codes.
    merged : int
        Heads that lie side by side in a row of the output; 1 where each head has a matrix of its own.
    """

    heads: int | Expr
    rows: int | Expr
    tokens: int | Expr
    d: int
    grid: tuple[int, int] | None
    n_thresholds: int
    merged: int = 1


@T.inline
def relative_logits(dots, logits, r, row, h, w, first_w):
    """Spread the products of query `row` with relative positions over the keys: ``logits[r, y' * w + x']``."""
    by_column = T.alloc_buffer((w,), "int32", scope="local")
    for x in range(w):
        by_column[x] = dots[r, first_w + row % w - x + w - 1]
    for y in range(h):
        for x in range(w):
            logits[r, y * w + x] = dots[r, row // w - y + h - 1] + by_column[x]


@T.inline
def normalise(logits, r, vectors, offset):
    """Write the ``c`` of ``-log2(p) = c - logit`` to ``offset[0]``: the maximum plus the logarithm of the sum."""
    total = T.alloc_buffer((2,), "int32x16", scope="local")
    highest = T.alloc_buffer((1,), "int32", scope="local")
    total[0] = T.broadcast(T.int32(PADDING), LANES)
    total[1] = T.broadcast(0, LANES)
    for i in range(vectors):
        total[0] = T.max(total[0], logits[r, T.ramp(i * LANES, 1, LANES)])
    highest[0] = reduce_vector("smax", total[0])
    for i in range(vectors):
        total[1] = total[1] + exp2_fixed(T.broadcast(highest[0], LANES) - logits[r, T.ramp(i * LANES, 1, LANES)])
    log2_fixed(reduce_vector("add", total[1]), offset)
    offset[0] = offset[0] + highest[0]


@dataclass(frozen=True)
class OperandCoder:
    """How logits become probability operands.

    Attributes
    ----------
    scratch : int
        int32 elements that `prepare` fills, once for several rows.
    prepare : callable
        Inline function ``(scratch, thresholds, table)``.
    encode : callable
        Inline function ``(logits, offset, scratch, thresholds, table, operands)``: the operands of 16 `logits`, an
        int32x16 expression, to ``operands[0]``, int32x16 too.
    """

    scratch: int
    prepare: Callable[..., None]
    encode: Callable[..., None]


@T.inline
def encode_row(coder, logits, r, vectors, offset, scratch, thresholds, table, out, total):
    """uint8 operands of ``vectors * 16`` keys to ``out[r]``, and their sum to ``total[r]``."""
    operands = T.alloc_buffer((1,), "int32x16", scope="local")
    sums = T.alloc_buffer((1,), "int32x16", scope="local")
    sums[0] = T.broadcast(0, LANES)
    for i in range(vectors):
        coder.encode(logits[r, T.ramp(i * LANES, 1, LANES)], offset, scratch, thresholds, table, operands)
        sums[0] = sums[0] + operands[0]
        out[r, T.ramp(i * LANES, 1, LANES)] = T.cast(operands[0], "uint8x16")
    total[r] = reduce_vector("add", sums[0])


def _permuting(n: int) -> OperandCoder:
    """Up to 15 thresholds, which fit in one register, AVX-512 only: a binary search by lane permutation."""

    @T.inline
    def prepare(scratch, thresholds, table):
        # lane c of the first register holds threshold c - 1, so that lane and code agree
        scratch[0] = 0
        for t in range(LANES - 1):
            scratch[1 + t] = T.if_then_else(t < n, thresholds[T.min(t, n - 1)], T.int32(-(2**31)))
        for t in range(LANES):
            scratch[LANES + t] = T.cast(table[T.min(t, n)], "int32")

    @T.inline
    def encode(logits, offset, scratch, thresholds, table, operands):
        operands[0] = T.broadcast(0, LANES)
        for s in T.unroll(4):
            operands[0] = operands[0] + T.Select(
                _permute(scratch[T.ramp(0, 1, LANES)], operands[0] + T.broadcast(T.shift_right(8, s), LANES))
                >= T.broadcast(offset[0], LANES) - logits,
                T.broadcast(T.shift_right(8, s), LANES),
                T.broadcast(0, LANES),
            )
        operands[0] = _permute(scratch[T.ramp(LANES, 1, LANES)], operands[0])

    return OperandCoder(2 * LANES, prepare, encode)


def _comparing(n: int) -> OperandCoder:
    """A comparison with every threshold; each one passed adds the step from one operand to the next."""

    @T.inline
    def prepare(scratch, thresholds, table):
        for t in range(n):
            scratch[t] = T.cast(table[t + 1], "int32") - T.cast(table[t], "int32")

    @T.inline
    def encode(logits, offset, scratch, thresholds, table, operands):
        operands[0] = T.broadcast(T.cast(table[0], "int32"), LANES)
        for t in range(n):
            operands[0] = operands[0] + T.Select(
                T.broadcast(offset[0] - thresholds[t], LANES) <= logits,
                T.broadcast(scratch[t], LANES),
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
    def prepare(scratch, thresholds, table):
        scratch[0] = 0  # nothing to prepare: TVM has no gather from memory that a kernel allocates

    @T.inline
    def encode(logits, offset, scratch, thresholds, table, operands):
        operands[0] = T.broadcast(0, LANES)  # the code, and its operand, where the search does not begin
        if reduce_vector("smax", logits) >= offset[0] - thresholds[0]:
            for s in T.unroll(steps):
                operands[0] = operands[0] + T.Select(
                    T.And(
                        operands[0] + bit(s) <= T.broadcast(n, LANES),
                        thresholds[T.min(operands[0] + bit(s), T.broadcast(n, LANES)) - T.broadcast(1, LANES)]
                        >= T.broadcast(offset[0], LANES) - logits,
                    ),
                    bit(s),
                    T.broadcast(0, LANES),
                )
            operands[0] = T.cast(table[operands[0]], "int32x16")

    return OperandCoder(1, prepare, encode)


def operand_coder(n: int, target: HostTarget) -> OperandCoder:
    """The fastest coder for `n` thresholds on `target`."""
    if n < LANES and "avx512f" in target.cpu_features:
        return _permuting(n)
    return _comparing(n) if n <= _LINEAR else _searching(n)
