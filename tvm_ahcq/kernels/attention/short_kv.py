"""Log-domain integer attention of any number of queries to a few keys, with AVX512-VNNI.

The image attends to the prompts so: thousands of queries, about as many keys as there are clicks. A vector is then 16
queries, so that none of its lanes is idle and the maximum, the sum and the logarithm of a row need no reduction.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from tvm_ahcq.kernels.common.fixed_point import exp2_fixed_avx512, half, log2_fixed_vector
from tvm_ahcq.kernels.common.vector import LANES, SIGN_BITS, repeat_codes, vpdpbusd
from tvm_ahcq.target import HostTarget

from .softmax_codes import PADDING, AttentionShape, operand_coder
from .vnni_pack import four_values

MAX_KEYS = 32
"""Most keys that this is for: at about so many, vectors of keys are as good."""

_CHUNK = 256
"""Queries of a parallel task."""

_LITTLE_WORK = 1 << 12
"""Logits up to which one thread is sooner done than several are woken."""


@T.inline
def _pack_keys(k, v, constants, b, tokens, d, keys, offset, values):
    """Keys and values of head `b`, less 128, and what zero points leave of each key."""
    for t in range(tokens):
        offset[t] = d * constants[1]
        for c in range(d // 4):
            keys[t, c] = T.bitwise_xor(T.reinterpret("int32", k[b, t, T.ramp(c * 4, 1, 4)]), T.int32(SIGN_BITS))
        for c in range(d):
            offset[t] = offset[t] - T.cast(k[b, t, c], "int32")
        offset[t] = offset[t] * constants[0]
    for j, part in T.grid((tokens + 3) // 4, d // LANES):
        values[j, part, T.ramp(0, 1, LANES)] = four_values(
            v, b, [T.min(j * 4 + i, tokens - 1) for i in range(4)], part * LANES
        )


@T.inline
def _find_logits(q, b, first, rows, tokens, d, constants, keys, offset, words, logits, highest):
    """Base-2 logits of 16 queries with every key, and the largest of each query."""
    acc = T.alloc_buffer((1,), "int32x16", scope="local")
    row_offset = T.alloc_buffer((1,), "int32x16", scope="local")
    for lane in range(LANES):
        for c in range(d // 4):
            words[c, lane] = T.reinterpret("int32", q[b, T.min(first + lane, rows - 1), T.ramp(c * 4, 1, 4)])
    row_offset[0] = T.broadcast(0, LANES)
    for c in T.unroll(d // 4):
        row_offset[0] = vpdpbusd(
            row_offset[0], T.reinterpret("uint8x64", words[c, T.ramp(0, 1, LANES)]), T.broadcast(T.int8(1), 4 * LANES)
        )
    row_offset[0] = row_offset[0] * T.broadcast(128 - constants[1], LANES) + T.broadcast(half(constants[3]), LANES)
    highest[0] = T.broadcast(T.int32(PADDING), LANES)
    for t in range(tokens):
        acc[0] = row_offset[0] + T.broadcast(offset[t], LANES)
        for c in T.unroll(d // 4):
            acc[0] = vpdpbusd(
                acc[0],
                T.reinterpret("uint8x64", words[c, T.ramp(0, 1, LANES)]),
                repeat_codes(keys[t, c], "int8", LANES),
            )
        acc[0] = T.shift_right(acc[0], T.broadcast(constants[3], LANES)) * T.broadcast(constants[5], LANES)
        acc[0] = T.shift_right(acc[0] + T.broadcast(half(constants[8]), LANES), T.broadcast(constants[8], LANES))
        logits[t, T.ramp(0, 1, LANES)] = acc[0]
        highest[0] = T.max(highest[0], acc[0])


@T.inline
def _find_operands(coder, scratch, thresholds, table, tokens, logits, highest, operands, totals):
    """Operands of the probabilities, those of four keys in an int32, and their sums to ``totals[0]``."""
    total = T.alloc_buffer((1,), "int32x16", scope="local")
    place = T.alloc_buffer((1,), "int32x16", scope="local")
    found = T.alloc_buffer((1,), "int32x16", scope="local")
    packed = T.alloc_buffer((1,), "int32x16", scope="local")
    zero = T.alloc_buffer((1,), "int32", scope="local")
    zero[0] = 0
    total[0] = T.broadcast(0, LANES)
    for t in range(tokens):
        total[0] = total[0] + exp2_fixed_avx512(highest[0] - logits[t, T.ramp(0, 1, LANES)])
    log2_fixed_vector(total[0], place)
    place[0] = place[0] + highest[0]
    totals[0] = T.broadcast(0, LANES)
    for j in range((tokens + 3) // 4):
        packed[0] = T.broadcast(0, LANES)
        for s in T.unroll(4):
            coder.encode(logits[j * 4 + s, T.ramp(0, 1, LANES)] - place[0], zero, scratch, thresholds, table, found)
            packed[0] = T.bitwise_or(packed[0], T.shift_left(found[0], T.broadcast(8 * s, LANES)))
        totals[0] = vpdpbusd(totals[0], T.reinterpret("uint8x64", packed[0]), T.broadcast(T.int8(1), 4 * LANES))
        operands[j, T.ramp(0, 1, LANES)] = packed[0]


@T.inline
def _weigh_values(operands, totals, values, tokens, d, out_scale, out, b, heads, first, rows):
    """``out = float32(operands @ (v - v_zero)) * out_scale`` of 16 queries; ``totals`` are multiplied already."""
    acc = T.alloc_buffer((1,), "int32x16", scope="local")
    for lane in range(T.min(rows - first, LANES)):
        for part in T.unroll(d // LANES):
            acc[0] = T.broadcast(totals[lane], LANES)
            for j in range((tokens + 3) // 4):
                acc[0] = vpdpbusd(
                    acc[0],
                    repeat_codes(operands[j, lane], "uint8", LANES),
                    T.reinterpret("int8x64", values[j, part, T.ramp(0, 1, LANES)]),
                )
            out[b // heads, b % heads, first + lane, T.ramp(part * LANES, 1, LANES)] = T.cast(
                acc[0], "float32x16"
            ) * T.broadcast(out_scale[0], LANES)


def supports_short_kv(shape: AttentionShape) -> bool:
    """Whether there may be few keys, none with a relative position, and :func:`short_kv_body` can take them."""
    many = isinstance(shape.tokens, int) and shape.tokens > MAX_KEYS
    return shape.grid is None and shape.d % LANES == 0 and not many


def short_kv_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Inline function with the arguments of the kernel, for `MAX_KEYS` keys at most."""
    rows, tokens, d = shape.rows, shape.tokens, shape.d
    chunks = (rows + _CHUNK - 1) // _CHUNK
    coder = operand_coder(shape.n_thresholds, target)

    @T.inline
    def tasks(q, k, v, constants, thresholds, table, out_scale, out, loop):
        for task in loop(shape.heads * chunks):
            keys = T.alloc_buffer((MAX_KEYS, d // 4), "int32")
            offset = T.alloc_buffer((MAX_KEYS,), "int32", scope="local")
            values = T.alloc_buffer((MAX_KEYS // 4, d // LANES, LANES), "int32")
            words = T.alloc_buffer((d // 4, LANES), "int32")
            logits = T.alloc_buffer((MAX_KEYS, LANES), "int32")
            operands = T.alloc_buffer((MAX_KEYS // 4, LANES), "int32", scope="local")
            totals = T.alloc_buffer((LANES,), "int32", scope="local")
            sums = T.alloc_buffer((1,), "int32x16", scope="local")
            highest = T.alloc_buffer((1,), "int32x16", scope="local")
            scratch = T.alloc_buffer((coder.scratch,), "int32", scope="local")
            b = task // chunks
            start = task % chunks * _CHUNK
            coder.prepare(scratch, thresholds, table)
            _pack_keys(k, v, constants, b, tokens, d, keys, offset, values)
            for t in range((tokens + 3) // 4 * 4 - tokens):
                logits[tokens + t, T.ramp(0, 1, LANES)] = T.broadcast(T.int32(PADDING), LANES)
            for i in range((T.min(rows - start, _CHUNK) + LANES - 1) // LANES):
                first = start + i * LANES
                _find_logits(q, b, first, rows, tokens, d, constants, keys, offset, words, logits, highest)
                _find_operands(coder, scratch, thresholds, table, tokens, logits, highest, operands, sums)
                totals[T.ramp(0, 1, LANES)] = sums[0] * T.broadcast(128 - constants[2], LANES)
                _weigh_values(operands, totals, values, tokens, d, out_scale, out, b, shape.merged, first, rows)

    @T.inline
    def body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out):
        if shape.heads * rows * tokens <= _LITTLE_WORK:
            tasks(q, k, v, constants, thresholds, table, out_scale, out, T.serial)
        else:
            tasks(q, k, v, constants, thresholds, table, out_scale, out, T.parallel)

    return body


def select_by_keys(shape: AttentionShape, few: Callable[..., None], many: Callable[..., None]) -> Callable[..., None]:
    """Inline function that decides by the number of keys, when the kernel runs if that is not constant."""
    if isinstance(shape.tokens, int):
        return few if shape.tokens <= MAX_KEYS else many

    @T.inline
    def body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out):
        if shape.tokens <= MAX_KEYS:
            few(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out)
        else:
            many(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out)

    return body
