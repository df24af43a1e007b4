"""Rows of logits to probability operands with AVX2, between the two matrix products of log-domain attention."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.avx2 import (
    BYTES,
    LANES,
    MAX_WORD,
    WORDS,
    add_saturated,
    choose_bytes,
    narrow_to_bytes,
    narrow_to_words,
    permute,
    reduce_lanes,
    sum_bytes,
)
from tvm_ahcq.kernels.common.fixed_point import exp2_fixed_avx2, log2_fixed_vector

from .avx2_tiling import BLOCK, ROWS

MAX_THRESHOLDS = 15
"""Thresholds whose codes fit in half of a byte, as lookups in a register need."""


@dataclass(frozen=True)
class RowBuffers:
    """Buffers of a tile of query rows, from logits to operands.

    Attributes
    ----------
    logits : Buffer
        Base-2 logits, int32 ``(rows, keys)``.
    highest : Buffer
        Largest logits of each row, int32x8 ``(rows,)``.
    below : Buffer
        Differences from the largest logit, saturated, int16 ``(rows, keys)``; of each 16 keys, the third and the second
        four are exchanged, as packing instructions do.
    sums : Buffer
        Sums of powers of two, int32 ``(8,)``.
    log2_sums : Buffer
        Their logarithms, int32 ``(8,)``.
    operands : Buffer
        Operands, uint8 ``(rows, keys)``.
    totals : Buffer
        Sums of the operands, int32 ``(rows,)``.
    peaks : Buffer
        Bounds of the sum of the operands of each `BLOCK` keys, int32 ``(rows,)``.
    """

    logits: Buffer
    highest: Buffer
    below: Buffer
    sums: Buffer
    log2_sums: Buffer
    operands: Buffer
    totals: Buffer
    peaks: Buffer


@dataclass(frozen=True)
class CoderTables:
    """Registers of a coder: a binary search among limits, each one more than a threshold, and operands.

    A code is at least `c` where limit ``c - 1`` exceeds ``-log2(p)``; the limits past the last one never do.

    Attributes
    ----------
    limits : Buffer
        The 15 limits, int16 ``(15,)``.
    third, fourth : Buffer
        The limits that the third and the fourth step compare with, by the bits before, int16 ``(16,)``: 4 limits four
        times, 8 limits twice.
    table : Buffer
        Operand of each code, twice, uint8 ``(32,)``.
    """

    limits: Buffer
    third: Buffer
    fourth: Buffer
    table: Buffer


@T.inline
def prepare_tables(attn, tables):
    """Fill the tables of a coder."""
    n = T.meta_var(attn.shape.n_thresholds)
    for t in range(MAX_THRESHOLDS):
        tables.limits[t] = T.if_then_else(
            t < n, T.cast(T.min(attn.thresholds[T.min(t, n - 1)], MAX_WORD - 1) + 1, "int16"), T.int16(-(2**15))
        )
    for t in range(WORDS):
        tables.third[t] = tables.limits[t % 4 * 4 + 1]
        tables.fourth[t] = tables.limits[t % 8 * 2]
    for t in range(BYTES):
        tables.table[t] = attn.table[T.min(t % 16, n)]


@T.inline
def subtract_maximum(rows, pairs):
    """Find ``below`` of each row, with ``16 * pairs`` keys."""
    top = T.alloc_buffer((1,), "int32", scope="local")
    for r in range(ROWS):
        top[0] = reduce_lanes("smax", rows.highest[r])
        for i in range(pairs):
            rows.below[r, T.ramp(i * WORDS, 1, WORDS)] = narrow_to_words(
                T.broadcast(top[0], LANES) - rows.logits[r, T.ramp(i * WORDS, 1, LANES)],
                T.broadcast(top[0], LANES) - rows.logits[r, T.ramp(i * WORDS + LANES, 1, LANES)],
            )


@T.inline
def normalise_rows(rows, pairs):
    """Find ``below`` and ``log2_sums`` of each row, with ``16 * pairs`` keys."""
    top = T.alloc_buffer((1,), "int32", scope="local")
    below = T.alloc_buffer((2,), "int32x8", scope="local")
    total = T.alloc_buffer((2,), "int32x8", scope="local")
    log2_sums = T.alloc_buffer((1,), "int32x8", scope="local")
    for r in range(ROWS):
        top[0] = reduce_lanes("smax", rows.highest[r])
        for u in T.unroll(2):
            total[u] = T.broadcast(0, LANES)
        for i in range(pairs):
            for u in T.unroll(2):
                below[u] = T.broadcast(top[0], LANES) - rows.logits[r, T.ramp(i * WORDS + u * LANES, 1, LANES)]
                total[u] = total[u] + exp2_fixed_avx2(below[u])
            rows.below[r, T.ramp(i * WORDS, 1, WORDS)] = narrow_to_words(below[0], below[1])
        rows.sums[r] = reduce_lanes("add", total[0] + total[1])
    log2_fixed_vector(rows.sums[T.ramp(0, 1, LANES)], log2_sums, LANES)
    rows.log2_sums[T.ramp(0, 1, LANES)] = log2_sums[0]


def _in_order(operands: Expr) -> Expr:
    """uint8x32 operands of 32 keys in the order of the keys."""
    lane = T.ramp(T.int32(0), 1, LANES)
    two, four = T.broadcast(T.int32(2), LANES), T.broadcast(T.int32(4), LANES)
    return T.reinterpret("uint8x32", permute(T.reinterpret("int32x8", operands), lane // two + lane % two * four))


def _words(value: int) -> Expr:
    """The int16 `value` in every lane."""
    return T.broadcast(T.int16(value), WORDS)


def _if_above(limit: Expr, minus_log2: Expr, value: int, otherwise: int = 0) -> Expr:
    """`value` in lanes whose limit exceeds ``-log2(p)``."""
    return T.Select(limit > minus_log2, _words(value), _words(otherwise))


def _choose_words(limits: Expr, index: Expr) -> Expr:
    """Limits, int16x16, by the places of their two bytes within 16."""
    chosen = choose_bytes(T.reinterpret("uint8x32", limits), T.reinterpret("uint8x32", index))
    return T.reinterpret("int16x16", chosen)


@T.inline
def _search(tables, minus_log2, code):
    """Codes of 16 keys: the number of limits that exceed ``minus_log2[0]``, a bit a step."""
    index = T.alloc_buffer((1,), "int16x16", scope="local")
    middle = T.Select(
        T.broadcast(tables.limits[7], WORDS) > minus_log2[0],
        T.broadcast(tables.limits[11], WORDS),
        T.broadcast(tables.limits[3], WORDS),
    )
    index[0] = (
        _if_above(T.broadcast(tables.limits[7], WORDS), minus_log2[0], 0x0404)
        + _if_above(middle, minus_log2[0], 0x0202)
        + _words(0x0100)
    )
    third = _choose_words(tables.third[T.ramp(0, 1, WORDS)], index[0])
    # twice the index, with 1 again as the difference of the places of two bytes, and with the third bit
    index[0] = index[0] + index[0] + _if_above(third, minus_log2[0], 0x0102, -0x0100)
    fourth = _choose_words(tables.fourth[T.ramp(0, 1, WORDS)], index[0])
    code[0] = T.bitwise_and(index[0], _words(0x00FF)) + _if_above(fourth, minus_log2[0], 1)


@T.inline
def encode_row(attn, tables, rows, r, blocks):
    """Operands of row `r` for ``32 * blocks`` keys, their sum, and a bound of that of each block."""
    minus_log2 = T.alloc_buffer((1,), "int16x16", scope="local")
    code = T.alloc_buffer((1,), "int16x16", scope="local")
    first = T.alloc_buffer((1,), "int16x16", scope="local")
    sums = T.alloc_buffer((2,), "int32x8", scope="local")
    peak = T.alloc_buffer((1,), "int32x8", scope="local")
    sums[0] = T.broadcast(0, LANES)
    peak[0] = T.broadcast(0, LANES)
    for i in range(blocks):
        for u in T.unroll(2):
            minus_log2[0] = rows.below[r, T.ramp(i * BLOCK + u * WORDS, 1, WORDS)]
            if not attn.shape.row_relative:
                minus_log2[0] = add_saturated(minus_log2[0], T.broadcast(T.cast(rows.log2_sums[r], "int16"), WORDS))
            _search(tables, minus_log2, code)
            if u == 0:
                first[0] = code[0]
        rows.operands[r, T.ramp(i * BLOCK, 1, BLOCK)] = _in_order(
            choose_bytes(tables.table[T.ramp(0, 1, BYTES)], narrow_to_bytes(first[0], code[0]))
        )
        sums[1] = sum_bytes(rows.operands[r, T.ramp(i * BLOCK, 1, BLOCK)])
        sums[0] = sums[0] + sums[1]
        peak[0] = T.max(peak[0], sums[1])
    rows.totals[r] = reduce_lanes("add", sums[0])
    rows.peaks[r] = reduce_lanes("add", peak[0])
