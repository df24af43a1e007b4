"""The part of log-domain attention between the two matrix products, with AVX-512: rows of logits to operands.

The operands of 64 keys are stored in the order that packing instructions give: those of keys ``16 m + 4 s`` and on,
four by four, in places ``16 s + 4 m`` and on.
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.fixed_point import exp2_fixed_avx512, log2_fixed
from tvm_ahcq.kernels.common.vector import LANES, vpdpbusd
from tvm_ahcq.target import HostTarget

from .softmax_codes import operand_coder, reduce_vector

KEYS = 4 * LANES
"""Keys whose operands are found together."""

_WORDS = 2 * LANES
"""16-bit lanes of a register, and thresholds, with one that is never reached, that fit in it."""

MAX_MINUS_LOG2 = 2**15 - 2
"""Largest threshold that 16-bit lanes can tell from what exceeds it."""


@T.inline
def normalise_rows(logits, highest, rows, vectors, sums, offset):
    """``offset[r]``: the ``c`` of ``-log2(p) = c - logit`` in row `r`, whose largest logits ``highest[r]`` holds."""
    top = T.alloc_buffer((1,), "int32", scope="local")
    total = T.alloc_buffer((1,), "int32x16", scope="local")
    result = T.alloc_buffer((1,), "int32", scope="local")
    for r in range(rows):
        top[0] = reduce_vector("smax", highest[r])
        offset[r] = top[0]
        total[0] = T.broadcast(0, LANES)
        for i in range(vectors):
            total[0] = total[0] + exp2_fixed_avx512(T.broadcast(top[0], LANES) - logits[r, T.ramp(i * LANES, 1, LANES)])
        sums[r] = reduce_vector("add", total[0])
    for r in range(rows):
        log2_fixed(sums[r], result)
        offset[r] = offset[r] + result[0]


def _words(first: Expr, second: Expr) -> Expr:
    """Two int32x16 to one int16x32, saturated, in an order of its own."""
    return T.call_llvm_pure_intrin("int16x32", "llvm.x86.avx512.packssdw.512", first, second)


def _bytes(first: Expr, second: Expr) -> Expr:
    """Two int16x32 to one uint8x64, saturated, in an order of its own."""
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
        Inline function ``(scratch, words, thresholds, table)``; `words` are 64 int16 elements.
    encode : callable
        Inline function ``(logits, r, blocks, offset, scratch, words, thresholds, table, out, totals)``: operands of the
        ``64 * blocks`` keys of row `r` to ``out[r]``, their sum to ``totals[r]``.
    """

    def __init__(self, n: int, target: HostTarget):
        self.scratch = 1
        if n < _WORDS:
            self.prepare, self.encode = _searching(n)
        else:
            coder = operand_coder(n, target)
            self.scratch = coder.scratch
            self.prepare, self.encode = _vector_by_vector(coder)


def _searching(n: int):
    """Thresholds that fit in a register: a binary search in 16-bit lanes."""
    steps = n.bit_length()

    def bit(s: Expr) -> Expr:
        """What step `s` may add to the code, in every lane."""
        return T.broadcast(T.cast(T.shift_right(T.int32(1 << (steps - 1)), s), "int16"), _WORDS)

    @T.inline
    def prepare(scratch, words, thresholds, table):
        # lane c of the first register holds threshold c - 1, so that lane and code agree
        for t in range(_WORDS):
            words[t] = T.if_then_else(
                T.And(t > 0, t <= n),
                T.cast(T.min(thresholds[T.min(T.max(t - 1, 0), n - 1)], MAX_MINUS_LOG2), "int16"),
                T.int16(-(2**15)),
            )
            words[_WORDS + t] = T.cast(table[T.min(t, n)], "int16")

    @T.inline
    def search(minus_log2, words, code, place):
        code[place] = T.Select(
            T.broadcast(words[1 << (steps - 1)], _WORDS) >= minus_log2[0], bit(0), T.broadcast(T.int16(0), _WORDS)
        )
        for s in T.unroll(steps - 1):
            code[place] = code[place] + T.Select(
                _choose(words[T.ramp(0, 1, _WORDS)], code[place] + bit(s + 1)) >= minus_log2[0],
                bit(s + 1),
                T.broadcast(T.int16(0), _WORDS),
            )
        code[place] = _choose(words[T.ramp(_WORDS, 1, _WORDS)], code[place])

    @T.inline
    def encode(logits, r, blocks, offset, scratch, words, thresholds, table, out, totals):
        minus_log2 = T.alloc_buffer((1,), "int16x32", scope="local")
        code = T.alloc_buffer((2,), "int16x32", scope="local")
        sums = T.alloc_buffer((1,), "int32x16", scope="local")
        sums[0] = T.broadcast(0, LANES)
        for i in range(blocks):
            for half in T.unroll(2):
                minus_log2[0] = _words(
                    T.broadcast(offset[r], LANES) - logits[r, T.ramp(i * KEYS + half * _WORDS, 1, LANES)],
                    T.broadcast(offset[r], LANES) - logits[r, T.ramp(i * KEYS + half * _WORDS + LANES, 1, LANES)],
                )
                search(minus_log2, words, code, half)
            out[r, T.ramp(i * KEYS, 1, KEYS)] = _bytes(code[0], code[1])
            sums[0] = vpdpbusd(sums[0], out[r, T.ramp(i * KEYS, 1, KEYS)], T.broadcast(T.int8(1), KEYS))
        totals[r] = reduce_vector("add", sums[0])

    return prepare, encode


def _vector_by_vector(coder):
    """Any number of thresholds, by the coder for 16 keys."""

    @T.inline
    def prepare(scratch, words, thresholds, table):
        coder.prepare(scratch, thresholds, table)

    @T.inline
    def encode(logits, r, blocks, offset, scratch, words, thresholds, table, out, totals):
        found = T.alloc_buffer((4,), "int32x16", scope="local")
        operands = T.alloc_buffer((1,), "int32x16", scope="local")
        place = T.alloc_buffer((1,), "int32", scope="local")
        sums = T.alloc_buffer((1,), "int32x16", scope="local")
        sums[0] = T.broadcast(0, LANES)
        place[0] = offset[r]
        for i in range(blocks):
            for m in T.unroll(4):
                coder.encode(
                    logits[r, T.ramp(i * KEYS + m * LANES, 1, LANES)], place, scratch, thresholds, table, operands
                )
                found[m] = operands[0]
                sums[0] = sums[0] + operands[0]
            out[r, T.ramp(i * KEYS, 1, KEYS)] = _bytes(_words(found[0], found[1]), _words(found[2], found[3]))
        totals[r] = reduce_vector("add", sums[0])

    return prepare, encode
