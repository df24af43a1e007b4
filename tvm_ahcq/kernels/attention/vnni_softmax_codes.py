"""Rows of logits to probability operands with AVX-512, between the two matrix products of log-domain attention.

The operands of 64 keys are stored in the order that packing instructions give: those of keys ``16 m + 4 s`` and on,
four by four, in places ``16 s + 4 m`` and on.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.fixed_point import exp2_fixed_avx512, log2_fixed
from tvm_ahcq.kernels.common.vector import LANES, vpdpbusd
from tvm_ahcq.target import HostTarget

from .softmax_codes import CoderBuffers, operand_coder, reduce_vector

KEYS = 4 * LANES
"""Keys of one iteration of a row coder."""

_WORDS = 2 * LANES
"""16-bit lanes of a register, and thresholds, with one that is never reached, that fit in it."""

MAX_MINUS_LOG2 = 2**15 - 2
"""Largest threshold that 16-bit lanes can tell from what exceeds it."""


@dataclass(frozen=True)
class RowBuffers:
    """Buffers of a tile of query rows, from logits to operands.

    Attributes
    ----------
    logits : Buffer
        Base-2 logits, int32 ``(rows, keys)``.
    highest : Buffer
        Largest logits of each row, int32x16 ``(rows,)``.
    sums : Buffer
        Sums of powers of two, int32 ``(rows,)``.
    shift : Buffer
        The ``c`` of ``-log2(p) = c - logit``, the row's maximum with row-relative codes, int32 ``(rows,)``.
    operands : Buffer
        Operands, uint8 ``(rows, keys)``.
    totals : Buffer
        Sums of the operands, int32 ``(rows,)``.
    """

    logits: Buffer
    highest: Buffer
    sums: Buffer
    shift: Buffer
    operands: Buffer
    totals: Buffer


@dataclass(frozen=True)
class RowCoderBuffers(CoderBuffers):
    """Buffers that a row coder reads; `words` are 64 int16 elements that its `prepare` fills."""

    words: Buffer


@T.inline
def normalise_rows(attn, rows, count, vectors):
    """Find ``shift`` of each row."""
    top = T.alloc_buffer((1,), "int32", scope="local")
    total = T.alloc_buffer((1,), "int32x16", scope="local")
    result = T.alloc_buffer((1,), "int32", scope="local")
    for r in range(count):
        top[0] = reduce_vector("smax", rows.highest[r])
        rows.shift[r] = top[0]
        if not attn.shape.row_relative:
            total[0] = T.broadcast(0, LANES)
            for i in range(vectors):
                total[0] = total[0] + exp2_fixed_avx512(
                    T.broadcast(top[0], LANES) - rows.logits[r, T.ramp(i * LANES, 1, LANES)]
                )
            rows.sums[r] = reduce_vector("add", total[0])
    if not attn.shape.row_relative:
        for r in range(count):
            log2_fixed(rows.sums[r], result)
            rows.shift[r] = rows.shift[r] + result[0]


def _words(first: Expr, second: Expr) -> Expr:
    """Two int32x16 to one int16x32, saturated, interleaved by 128-bit lanes."""
    return T.call_llvm_pure_intrin("int16x32", "llvm.x86.avx512.packssdw.512", first, second)


def _bytes(first: Expr, second: Expr) -> Expr:
    """Two int16x32 to one uint8x64, saturated, interleaved by 128-bit lanes."""
    packed = T.call_llvm_pure_intrin("int8x64", "llvm.x86.avx512.packuswb.512", first, second)
    return T.reinterpret("uint8x64", packed)


def _choose(table: Expr, index: Expr) -> Expr:
    """``table[index]`` in every lane; both are int16x32."""
    return T.call_llvm_pure_intrin("int16x32", "llvm.x86.avx512.permvar.hi.512", table, index)


class RowCoder:
    """Operands of a row of logits.

    Parameters
    ----------
    n : int
        Thresholds.
    target : HostTarget
        With AVX-512.

    Attributes
    ----------
    scratch : int
        int32 elements that :attr:`prepare` fills, once for several rows.
    prepare : callable
        Inline function of :class:`RowCoderBuffers`.
    encode : callable
        Inline function ``(buffers, rows, r, blocks)``, with :class:`RowBuffers` `rows`: operands of the
        ``64 * blocks`` keys of row `r`, and their sum.
    """

    def __init__(self, n: int, target: HostTarget):
        self.scratch = 1
        if n < _WORDS:
            self.prepare, self.encode = _searching(n)
        else:
            coder = operand_coder(n, target)
            self.scratch = coder.scratch
            self.prepare, self.encode = _vector_by_vector(coder)


def _minus_log2(rows: RowBuffers, r: Expr, first: Expr) -> Expr:
    """``-log2(p)`` of 16 keys of row `r`."""
    return T.broadcast(rows.shift[r], LANES) - rows.logits[r, T.ramp(first, 1, LANES)]


def _bit(steps: int, s: Expr) -> Expr:
    """Bit of the code that step `s` of a search in `steps` steps decides, in every lane."""
    return T.broadcast(T.cast(T.shift_right(T.int32(1 << (steps - 1)), s), "int16"), _WORDS)


@T.inline
def _search(buffers, steps, minus_log2, code, place):
    """Operands of 32 keys to ``code[place]``."""
    code[place] = T.Select(
        T.broadcast(buffers.words[1 << (steps - 1)], _WORDS) >= minus_log2[0],
        _bit(steps, 0),
        T.broadcast(T.int16(0), _WORDS),
    )
    for s in T.unroll(steps - 1):
        code[place] = code[place] + T.Select(
            _choose(buffers.words[T.ramp(0, 1, _WORDS)], code[place] + _bit(steps, s + 1)) >= minus_log2[0],
            _bit(steps, s + 1),
            T.broadcast(T.int16(0), _WORDS),
        )
    code[place] = _choose(buffers.words[T.ramp(_WORDS, 1, _WORDS)], code[place])


def _searching(n: int):
    """Thresholds that fit in a register: a binary search in 16-bit lanes."""
    steps = n.bit_length()

    @T.inline
    def prepare(buffers):
        # lane c of the first register holds threshold c - 1, so that lane and code agree
        for t in range(_WORDS):
            buffers.words[t] = T.if_then_else(
                T.And(t > 0, t <= n),
                T.cast(T.min(buffers.thresholds[T.min(T.max(t - 1, 0), n - 1)], MAX_MINUS_LOG2), "int16"),
                T.int16(-(2**15)),
            )
            buffers.words[_WORDS + t] = T.cast(buffers.table[T.min(t, n)], "int16")

    @T.inline
    def encode(buffers, rows, r, blocks):
        minus_log2 = T.alloc_buffer((1,), "int16x32", scope="local")
        code = T.alloc_buffer((2,), "int16x32", scope="local")
        sums = T.alloc_buffer((1,), "int32x16", scope="local")
        sums[0] = T.broadcast(0, LANES)
        for i in range(blocks):
            for half in T.unroll(2):
                minus_log2[0] = _words(
                    _minus_log2(rows, r, i * KEYS + half * _WORDS),
                    _minus_log2(rows, r, i * KEYS + half * _WORDS + LANES),
                )
                _search(buffers, steps, minus_log2, code, half)
            rows.operands[r, T.ramp(i * KEYS, 1, KEYS)] = _bytes(code[0], code[1])
            sums[0] = vpdpbusd(sums[0], rows.operands[r, T.ramp(i * KEYS, 1, KEYS)], T.broadcast(T.int8(1), KEYS))
        rows.totals[r] = reduce_vector("add", sums[0])

    return prepare, encode


def _vector_by_vector(coder):
    """Any number of thresholds, by the coder for 16 keys."""

    @T.inline
    def encode(buffers, rows, r, blocks):
        four = T.alloc_buffer((4,), "int32x16", scope="local")
        operands = T.alloc_buffer((1,), "int32x16", scope="local")
        place = T.alloc_buffer((1,), "int32", scope="local")
        sums = T.alloc_buffer((1,), "int32x16", scope="local")
        sums[0] = T.broadcast(0, LANES)
        place[0] = rows.shift[r]
        for i in range(blocks):
            for m in T.unroll(4):
                coder.encode(buffers, rows.logits[r, T.ramp(i * KEYS + m * LANES, 1, LANES)], place, operands)
                four[m] = operands[0]
                sums[0] = sums[0] + operands[0]
            rows.operands[r, T.ramp(i * KEYS, 1, KEYS)] = _bytes(_words(four[0], four[1]), _words(four[2], four[3]))
        rows.totals[r] = reduce_vector("add", sums[0])

    return coder.prepare, encode
