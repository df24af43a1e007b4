"""Log-domain integer attention of any number of queries to a few keys, with AVX512-VNNI.

For cross-attention from image tokens to prompt tokens: thousands of queries, a handful of keys. A vector is 16
queries, so that no lane is idle and the maximum, the sum and the logarithm of a row need no reduction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.fixed_point import exp2_fixed_avx512, half, log2_fixed_vector
from tvm_ahcq.kernels.common.parallel import SERIAL_LOGITS
from tvm_ahcq.kernels.common.vector import LANES, SIGN_BITS, repeat_codes, vpdpbusd
from tvm_ahcq.target import HostTarget

from .context import AttentionContext, AttentionShape
from .softmax_codes import PADDING, CoderBuffers, operand_coder
from .vnni_pack import four_values

MAX_KEYS = 32
"""Largest number of keys; with more, vectors of keys are as fast."""

_CHUNK = 256
"""Queries of a parallel task."""


@dataclass(frozen=True)
class _PackedKeys:
    """Keys and values of head `b`, less 128, and the correction of products with each key."""

    b: Expr
    keys: Buffer
    offset: Buffer
    values: Buffer


@dataclass(frozen=True)
class _Queries:
    """Buffers of a vector of 16 queries.

    Attributes
    ----------
    words : Buffer
        Four codes of each query, int32 ``(d / 4, 16)``.
    logits : Buffer
        Base-2 logits, int32 ``(keys, 16)``.
    operands : Buffer
        Operands of four keys in an int32, ``(keys / 4, 16)``.
    totals : Buffer
        Sums of the operands, times 128 less the zero point of values, int32 ``(16,)``.
    scales : Buffer
        Factors of the sums of operands times values, float32 ``(16,)``.
    sums : Buffer
        Sums of the operands, one int32x16.
    highest : Buffer
        Largest logits, one int32x16.
    """

    words: Buffer
    logits: Buffer
    operands: Buffer
    totals: Buffer
    scales: Buffer
    sums: Buffer
    highest: Buffer


def _quadruples(attn: AttentionContext) -> int | Expr:
    """Quadruples of keys, the last one padded."""
    return (attn.shape.keys + 3) // 4


@T.inline
def _pack_keys(attn, head):
    """Pack the keys and values of a head."""
    d = T.meta_var(attn.shape.d)
    for t in range(attn.shape.keys):
        head.offset[t] = d * attn.k_zero
        for c in range(d // 4):
            head.keys[t, c] = T.bitwise_xor(
                T.reinterpret("int32", attn.k[head.b, t, T.ramp(c * 4, 1, 4)]), T.int32(SIGN_BITS)
            )
        for c in range(d):
            head.offset[t] = head.offset[t] - T.cast(attn.k[head.b, t, c], "int32")
        head.offset[t] = head.offset[t] * attn.q_zero
    for j, part in T.grid(_quadruples(attn), d // LANES):
        head.values[j, part, T.ramp(0, 1, LANES)] = four_values(
            attn.v, head.b, [T.min(j * 4 + i, attn.shape.keys - 1) for i in range(4)], part * LANES
        )


@T.inline
def _find_logits(attn, head, queries, first):
    """Base-2 logits of 16 queries with every key, and the largest of each query."""
    words = T.meta_var(queries.words)
    quarter = T.meta_var(attn.shape.d // 4)
    acc = T.alloc_buffer((1,), "int32x16", scope="local")
    row_offset = T.alloc_buffer((1,), "int32x16", scope="local")
    for lane in range(LANES):
        for c in range(quarter):
            words[c, lane] = T.reinterpret("int32", attn.q[head.b, attn.query_row(first, lane), T.ramp(c * 4, 1, 4)])
    row_offset[0] = T.broadcast(0, LANES)
    for c in T.unroll(quarter):
        row_offset[0] = vpdpbusd(
            row_offset[0], T.reinterpret("uint8x64", words[c, T.ramp(0, 1, LANES)]), T.broadcast(T.int8(1), 4 * LANES)
        )
    row_offset[0] = row_offset[0] * T.broadcast(128 - attn.k_zero, LANES) + T.broadcast(half(attn.qk_shift), LANES)
    queries.highest[0] = T.broadcast(T.int32(PADDING), LANES)
    for t in range(attn.shape.keys):
        acc[0] = row_offset[0] + T.broadcast(head.offset[t], LANES)
        for c in T.unroll(quarter):
            acc[0] = vpdpbusd(
                acc[0],
                T.reinterpret("uint8x64", words[c, T.ramp(0, 1, LANES)]),
                repeat_codes(head.keys[t, c], "int8", LANES),
            )
        acc[0] = T.shift_right(acc[0], T.broadcast(attn.qk_shift, LANES)) * T.broadcast(attn.qk_multiplier, LANES)
        acc[0] = T.shift_right(acc[0] + T.broadcast(half(attn.shift), LANES), T.broadcast(attn.shift, LANES))
        queries.logits[t, T.ramp(0, 1, LANES)] = acc[0]
        queries.highest[0] = T.max(queries.highest[0], acc[0])


@T.inline
def _find_operands(attn, coder, buffers, queries):
    """Operands of the probabilities, those of four keys in an int32, and their sums."""
    logits = T.meta_var(queries.logits)
    total = T.alloc_buffer((1,), "int32x16", scope="local")
    offset = T.alloc_buffer((1,), "int32x16", scope="local")
    operand = T.alloc_buffer((1,), "int32x16", scope="local")
    packed = T.alloc_buffer((1,), "int32x16", scope="local")
    zero = T.alloc_buffer((1,), "int32", scope="local")
    zero[0] = 0
    total[0] = T.broadcast(0, LANES)
    if attn.shape.row_relative:
        offset[0] = queries.highest[0]
    else:
        for t in range(attn.shape.keys):
            total[0] = total[0] + exp2_fixed_avx512(queries.highest[0] - logits[t, T.ramp(0, 1, LANES)])
        log2_fixed_vector(total[0], offset, LANES)
        offset[0] = offset[0] + queries.highest[0]
    queries.sums[0] = T.broadcast(0, LANES)
    for j in range(_quadruples(attn)):
        packed[0] = T.broadcast(0, LANES)
        for s in T.unroll(4):
            coder.encode(buffers, logits[j * 4 + s, T.ramp(0, 1, LANES)] - offset[0], zero, operand)
            packed[0] = T.bitwise_or(packed[0], T.shift_left(operand[0], T.broadcast(8 * s, LANES)))
        queries.sums[0] = vpdpbusd(
            queries.sums[0], T.reinterpret("uint8x64", packed[0]), T.broadcast(T.int8(1), 4 * LANES)
        )
        queries.operands[j, T.ramp(0, 1, LANES)] = packed[0]


@T.inline
def _weigh_values(attn, head, queries, first):
    """``out = float32(operands @ (v - v_zero)) * scale`` of 16 queries."""
    heads = T.meta_var(attn.shape.output_heads)
    acc = T.alloc_buffer((1,), "int32x16", scope="local")
    for lane in range(T.min(attn.shape.queries - first, LANES)):
        for part in T.unroll(attn.shape.d // LANES):
            acc[0] = T.broadcast(queries.totals[lane], LANES)
            for j in range(_quadruples(attn)):
                acc[0] = vpdpbusd(
                    acc[0],
                    repeat_codes(queries.operands[j, lane], "uint8", LANES),
                    T.reinterpret("int8x64", head.values[j, part, T.ramp(0, 1, LANES)]),
                )
            attn.out[head.b // heads, head.b % heads, first + lane, T.ramp(part * LANES, 1, LANES)] = T.cast(
                acc[0], "float32x16"
            ) * T.broadcast(queries.scales[lane], LANES)


@T.inline
def _query_chunk(attn, coder, scratch, head, queries, start):
    """The queries of one parallel task, 16 at a time."""
    keys = T.meta_var(attn.shape.keys)
    buffers = T.meta_var(CoderBuffers(scratch, attn.thresholds, attn.table))
    coder.prepare(buffers)
    _pack_keys(attn, head)
    for t in range(_quadruples(attn) * 4 - keys):
        queries.logits[keys + t, T.ramp(0, 1, LANES)] = T.broadcast(T.int32(PADDING), LANES)
    for i in range((T.min(attn.shape.queries - start, _CHUNK) + LANES - 1) // LANES):
        first = start + i * LANES
        _find_logits(attn, head, queries, first)
        _find_operands(attn, coder, buffers, queries)
        queries.totals[T.ramp(0, 1, LANES)] = queries.sums[0]
        for lane in range(LANES):
            queries.scales[lane] = attn.scale(queries.totals[lane])
            queries.totals[lane] = queries.totals[lane] * (128 - attn.v_zero)
        _weigh_values(attn, head, queries, first)


@T.inline
def _tasks(attn, coder, loop):
    """Chunks of queries of every head, each of which packs the keys of its head."""
    d = T.meta_var(attn.shape.d)
    chunks = T.meta_var((attn.shape.queries + _CHUNK - 1) // _CHUNK)
    for task in loop(attn.shape.heads * chunks):
        keys = T.alloc_buffer((MAX_KEYS, d // 4), "int32")
        offset = T.alloc_buffer((MAX_KEYS,), "int32", scope="local")
        values = T.alloc_buffer((MAX_KEYS // 4, d // LANES, LANES), "int32")
        words = T.alloc_buffer((d // 4, LANES), "int32")
        logits = T.alloc_buffer((MAX_KEYS, LANES), "int32")
        operands = T.alloc_buffer((MAX_KEYS // 4, LANES), "int32", scope="local")
        totals = T.alloc_buffer((LANES,), "int32", scope="local")
        scales = T.alloc_buffer((LANES,), "float32", scope="local")
        sums = T.alloc_buffer((1,), "int32x16", scope="local")
        highest = T.alloc_buffer((1,), "int32x16", scope="local")
        scratch = T.alloc_buffer((coder.scratch,), "int32", scope="local")
        b = task // chunks
        start = task % chunks * _CHUNK
        head = T.meta_var(_PackedKeys(b, keys, offset, values))
        queries = T.meta_var(_Queries(words, logits, operands, totals, scales, sums, highest))
        _query_chunk(attn, coder, scratch, head, queries, start)


@T.inline
def _serial_or_parallel(coder, attn):
    if attn.shape.heads * attn.shape.queries * attn.shape.keys <= SERIAL_LOGITS:
        _tasks(attn, coder, T.serial)
    else:
        _tasks(attn, coder, T.parallel)


def supports_short_kv(shape: AttentionShape) -> bool:
    """True if there may be `MAX_KEYS` keys or fewer, without relative positions, of whole vectors of channels."""
    many = isinstance(shape.keys, int) and shape.keys > MAX_KEYS
    return shape.grid is None and shape.d % LANES == 0 and not many


def short_kv_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.AttentionContext` with `MAX_KEYS` keys at most."""
    return partial(_serial_or_parallel, operand_coder(shape.n_thresholds, target))


@T.inline
def _by_keys(few, many, attn):
    if attn.shape.keys <= MAX_KEYS:
        few(attn)
    else:
        many(attn)


def select_by_keys(shape: AttentionShape, few: Callable[..., None], many: Callable[..., None]) -> Callable[..., None]:
    """Return the inline function that selects by the number of keys: at run time if it is not constant."""
    if isinstance(shape.keys, int):
        return few if shape.keys <= MAX_KEYS else many
    return partial(_by_keys, few, many)
