"""Log-domain integer attention with AVX512-VNNI.

Keys and values are packed once a head as int8 (code - 128), so that codes of up to 8 bits fit; what that and the zero
points leave behind are sums over rows and columns, which are added exactly. A block of query rows then keeps its logits
in the cache from the first matrix product to the second.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..target import HostTarget
from .attention_row import PADDING, AttentionShape, encode_row, normalise, operand_coder, relative_logits
from .fixed_point import rounding_shift
from .vector import LANES, four_codes, vpdpbusd

_ROWS = 6
"""Query rows of a block; times 4 vectors of keys they fill the registers."""

_CHUNK = 8 * _ROWS
"""Query rows of a parallel task, which allocates its memory once for all of them."""

_KEYS = 4 * LANES
"""Keys of a tile."""


@T.inline
def dot_tile(acc, q, b, first_row, rows, packed, block, offset, first_offset, row_offset, steps):
    """Centred dot products of `_ROWS` queries with the 64 vectors packed from `block` on."""
    for r in T.unroll(_ROWS):
        for v in T.unroll(4):
            acc[r * 4 + v] = offset[T.ramp(first_offset + v * LANES, 1, LANES)] + T.broadcast(row_offset[r], LANES)
    for c in range(steps):
        for r in T.unroll(_ROWS):
            for v in T.unroll(4):
                acc[r * 4 + v] = vpdpbusd(
                    acc[r * 4 + v],
                    four_codes(q[b, T.min(first_row + r, rows - 1), T.ramp(c * 4, 1, 4)]),
                    packed[block + v, c, 0, T.ramp(0, 1, 64)],
                )


@T.inline
def pack_head(k, v, constants, b, block, blocks, tokens, d, keys, offset, values, value_vectors):
    """Pack 64 keys and values of head `b`; tokens past the end repeat the last one and are masked later."""
    for t, c, lane, i in T.grid(4, d // 4, LANES, 4):
        keys[(b * blocks + block) * 4 + t, c, lane, i] = T.reinterpret(
            "int8",
            T.bitwise_xor(k[b, T.min(block * _KEYS + t * LANES + lane, tokens - 1), c * 4 + i], T.uint8(128)),
        )
    for t in range(_KEYS):
        offset[b * blocks * _KEYS + block * _KEYS + t] = d * constants[1]
        for c in range(d):
            offset[b * blocks * _KEYS + block * _KEYS + t] = offset[b * blocks * _KEYS + block * _KEYS + t] - T.cast(
                k[b, T.min(block * _KEYS + t, tokens - 1), c], "int32"
            )
        offset[b * blocks * _KEYS + block * _KEYS + t] = offset[b * blocks * _KEYS + block * _KEYS + t] * constants[0]
    for t, vector, lane, i in T.grid(LANES, value_vectors, LANES, 4):
        values[(b * blocks + block) * LANES + t, vector, lane, i] = T.reinterpret(
            "int8",
            T.bitwise_xor(
                v[b, T.min(block * _KEYS + t * 4 + i, tokens - 1), T.min(vector * LANES + lane, d - 1)], T.uint8(128)
            ),
        )


@T.inline
def pack_relative(rel, count, first, d, constants, multiplier, packed, offset, scale):
    """Pack `count` relative positions from place `first` on, each with its multiplier."""
    for t in range(count):
        scale[first + t] = multiplier
        offset[first + t] = 0
        for c in range(d):
            packed[(first + t) // LANES, c // 4, (first + t) % LANES, c % 4] = rel[t, c]
            offset[first + t] = offset[first + t] - constants[0] * T.cast(rel[t, c], "int32")


@T.inline
def relative_block(q, b, first_row, rows, d, constants, packed, offset, scale, blocks, acc, row_offset, dots):
    """Scaled products of `_ROWS` queries with all relative positions, to ``dots``."""
    for r in range(_ROWS):
        row_offset[r] = 0
    for block in range(blocks):
        dot_tile(acc, q, b, first_row, rows, packed, block * 4, offset, block * _KEYS, row_offset, d // 4)
        for r in T.unroll(_ROWS):
            for t in T.unroll(4):
                dots[r, T.ramp(block * _KEYS + t * LANES, 1, LANES)] = (
                    rounding_shift(acc[r * 4 + t], constants[4]) * scale[T.ramp(block * _KEYS + t * LANES, 1, LANES)]
                )


@T.inline
def query_offsets(q, b, first_row, rows, d, constants, row_offset):
    """What packing keys as code - 128 instead of code - zero leaves out of each query's products."""
    for r in range(_ROWS):
        row_offset[r] = 0
        for c in range(d):
            row_offset[r] = row_offset[r] + T.cast(q[b, T.min(first_row + r, rows - 1), c], "int32")
        row_offset[r] = row_offset[r] * (128 - constants[1])


@T.inline
def scale_tile(acc, logits, first, constants, relative):
    """Integer products to base-2 logits, on top of the relative logits that are already there."""
    for r in T.unroll(_ROWS):
        for t in T.unroll(4):
            scaled = rounding_shift(acc[r * 4 + t], constants[3]) * T.broadcast(constants[5], LANES)
            if relative:
                logits[r, T.ramp(first + t * LANES, 1, LANES)] = rounding_shift(
                    scaled + logits[r, T.ramp(first + t * LANES, 1, LANES)], constants[8]
                )
            else:
                logits[r, T.ramp(first + t * LANES, 1, LANES)] = rounding_shift(scaled, constants[8])


@T.inline
def second_product(
    operands, totals, values, first_value, steps, constants, out_scale, out, b, first_row, rows, chunk, dv, d
):
    """``out = float32(operands @ (v - v_zero)) * out_scale`` for `_ROWS` rows, by `chunk` vectors of channels."""
    acc = T.alloc_buffer((_ROWS * chunk,), "int32x16", scope="local")
    lanes = T.alloc_buffer((LANES,), "float32", scope="local")
    for part in range(dv // chunk):
        for i in T.unroll(_ROWS * chunk):
            acc[i] = T.broadcast(0, LANES)
        for k in range(steps):
            for r in T.unroll(_ROWS):
                for v in T.unroll(chunk):
                    acc[r * chunk + v] = vpdpbusd(
                        acc[r * chunk + v],
                        four_codes(operands[r, T.ramp(k * 4, 1, 4)]),
                        values[first_value + k, part * chunk + v, 0, T.ramp(0, 1, 64)],
                    )
        for r in T.unroll(_ROWS):
            for v in T.unroll(chunk):
                lanes[T.ramp(0, 1, LANES)] = T.cast(
                    acc[r * chunk + v] + T.broadcast((128 - constants[2]) * totals[r], LANES), "float32x16"
                ) * T.broadcast(out_scale[0], LANES)
                for lane in range(T.min(d - (part * chunk + v) * LANES, LANES)):
                    out[b, T.min(first_row + r, rows - 1), (part * chunk + v) * LANES + lane] = lanes[lane]


def vnni_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Inline function with the arguments of the kernel; relative positions are None where there are none."""
    heads, rows, tokens, d = shape.heads, shape.rows, shape.tokens, shape.d
    blocks, chunks = (tokens + _KEYS - 1) // _KEYS, (rows + _CHUNK - 1) // _CHUNK
    vectors, dv = (tokens + LANES - 1) // LANES, -(-d // LANES)
    chunk = next(width for width in (4, 3, 2, 1) if dv % width == 0)
    h, w = shape.grid or (1, 1)
    rel_blocks = -(-(2 * h + 2 * w - 2) // _KEYS)
    relative = shape.grid is not None
    coder = operand_coder(shape.n_thresholds, target)

    @T.inline
    def query_chunk(q, rel, keys, offset, values, constants, thresholds, table, out_scale, out, b, start):
        logits = T.alloc_buffer((_ROWS, blocks * _KEYS), "int32")
        operands = T.alloc_buffer((_ROWS, blocks * _KEYS), "uint8")
        dots = T.alloc_buffer((_ROWS, rel_blocks * _KEYS), "int32")
        acc = T.alloc_buffer((_ROWS * 4,), "int32x16", scope="local")
        row_offset = T.alloc_buffer((_ROWS,), "int32", scope="local")
        shift = T.alloc_buffer((1,), "int32", scope="local")
        totals = T.alloc_buffer((_ROWS,), "int32", scope="local")
        scratch = T.alloc_buffer((coder.scratch,), "int32", scope="local")
        coder.prepare(scratch, thresholds, table)
        for j in range((T.min(rows - start, _CHUNK) + _ROWS - 1) // _ROWS):
            first_row = start + j * _ROWS
            if relative:
                relative_block(q, b, first_row, rows, d, constants, *rel, rel_blocks, acc, row_offset, dots)
                for r in range(_ROWS):
                    relative_logits(dots, logits, r, T.min(first_row + r, rows - 1), h, w, 2 * h - 1)
            query_offsets(q, b, first_row, rows, d, constants, row_offset)
            for i in range(blocks):
                block = b * blocks + i
                dot_tile(acc, q, b, first_row, rows, keys, block * 4, offset, block * _KEYS, row_offset, d // 4)
                scale_tile(acc, logits, i * _KEYS, constants, relative)
            for r in range(_ROWS):
                for t in range(vectors * LANES - tokens):
                    logits[r, tokens + t] = PADDING
                normalise(logits, r, vectors, shift)
                encode_row(coder, logits, r, vectors, shift, scratch, thresholds, table, operands, totals)
            second_product(
                operands, totals, values, b * blocks * LANES, vectors * 4, constants, out_scale,
                out, b, first_row, rows, chunk, dv, d,
            )  # fmt: skip

    @T.inline
    def body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out):
        keys = T.alloc_buffer((heads * blocks * 4, d // 4, LANES, 4), "int8")
        offset = T.alloc_buffer((heads * blocks * _KEYS,), "int32")
        values = T.alloc_buffer((heads * blocks * LANES, dv, LANES, 4), "int8")
        rel_packed = T.alloc_buffer((rel_blocks * 4, d // 4, LANES, 4), "int8")
        rel_offset = T.alloc_buffer((rel_blocks * _KEYS,), "int32")
        rel_scale = T.alloc_buffer((rel_blocks * _KEYS,), "int32")
        if relative:
            pack_relative(rel_h, 2 * h - 1, 0, d, constants, constants[6], rel_packed, rel_offset, rel_scale)
            pack_relative(rel_w, 2 * w - 1, 2 * h - 1, d, constants, constants[7], rel_packed, rel_offset, rel_scale)
        for task in T.parallel(heads * blocks):
            pack_head(k, v, constants, task // blocks, task % blocks, blocks, tokens, d, keys, offset, values, dv)
        for task in T.parallel(heads * chunks):
            query_chunk(
                q, (rel_packed, rel_offset, rel_scale), keys, offset, values, constants, thresholds, table, out_scale,
                out, task // chunks, task % chunks * _CHUNK,
            )  # fmt: skip

    return body
