"""Log-domain integer attention with AVX512-VNNI.

Keys and values are packed once a head. A block of query rows then keeps its logits in the cache from the first matrix
product to the second: the scores of all queries with all keys are never in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..target import HostTarget
from .attention_row import PADDING, AttentionShape, relative_logits
from .attention_vnni_pack import KeyVectors, pack_relative, pack_vector
from .attention_vnni_row import KEYS, RowCoder, normalise_rows
from .fixed_point import half
from .vector import LANES, four_codes, vpdpbusd

_TILES = ((4, 6), (7, 4), (5, 5), (6, 4), (3, 8), (2, 12), (1, 12))
"""Vectors of keys and query rows of a register tile, best first; the vectors must divide those of all keys."""

_CHUNK = 48
"""About so many query rows are a parallel task, which allocates its memory once for all of them."""

_SMALL = 512
"""A head of so many keys or fewer is one parallel task, from packing to the output."""


@T.inline
def dot_tile(acc, q, b, first_row, rows, tile, packed, block, offset, first_offset, row_offset, steps):
    """Centred dot products of the rows of a tile with its vectors, packed from `block` on."""
    for r in T.unroll(tile[1]):
        for v in T.unroll(tile[0]):
            acc[r * tile[0] + v] = offset[T.ramp(first_offset + v * LANES, 1, LANES)] + T.broadcast(
                row_offset[r], LANES
            )
    for c in range(steps):
        for r in T.unroll(tile[1]):
            for v in T.unroll(tile[0]):
                acc[r * tile[0] + v] = vpdpbusd(
                    acc[r * tile[0] + v],
                    four_codes(q[b, T.min(first_row + r, rows - 1), T.ramp(c * 4, 1, 4)]),
                    packed[block + v, c, 0, T.ramp(0, 1, 64)],
                )


@T.inline
def relative_block(q, b, first_row, rows, d, constants, tile, packed, offset, scale, blocks, acc, row_offset, dots):
    """Scaled products of the rows of a tile with all relative positions, to ``dots``."""
    for r in T.unroll(tile[1]):
        row_offset[r] = half(constants[4])
    for block in range(blocks):
        first = block * tile[0] * LANES
        dot_tile(acc, q, b, first_row, rows, tile, packed, block * tile[0], offset, first, row_offset, d // 4)
        for r in T.unroll(tile[1]):
            for v in T.unroll(tile[0]):
                dots[r, T.ramp(first + v * LANES, 1, LANES)] = (
                    T.shift_right(acc[r * tile[0] + v], T.broadcast(constants[4], LANES))
                    * scale[T.ramp(first + v * LANES, 1, LANES)]
                )


@T.inline
def query_offsets(q, b, first_row, rows, count, d, constants, row_offset):
    """What packing keys as code - 128 instead of code - zero leaves out of products, and what rounds them."""
    for r in T.unroll(count):
        row_offset[r] = 0
        for c in range(d):
            row_offset[r] = row_offset[r] + T.cast(q[b, T.min(first_row + r, rows - 1), c], "int32")
        row_offset[r] = row_offset[r] * (128 - constants[1]) + half(constants[3])


@T.inline
def second_product(
    operands, totals, values, first_value, vectors, constants, out_scale, out, b, heads, first_row, rows, count, chunk,
    dv, d,
):  # fmt: skip
    """``out = float32(operands @ (v - v_zero)) * out_scale`` for `count` rows, by `chunk` vectors of channels."""
    acc = T.alloc_buffer((count * chunk,), "int32x16", scope="local")
    lanes = T.alloc_buffer((LANES,), "float32", scope="local")
    for part in range(dv // chunk):
        for i in T.unroll(count * chunk):
            acc[i] = T.broadcast(0, LANES)
        for j in range(vectors):
            for s in T.unroll(4):
                for r in T.unroll(count):
                    for v in T.unroll(chunk):
                        acc[r * chunk + v] = vpdpbusd(
                            acc[r * chunk + v],
                            four_codes(operands[r, T.ramp(j // 4 * KEYS + s * 16 + j % 4 * 4, 1, 4)]),
                            T.reinterpret(
                                "int8x64", values[first_value + j * 4 + s, part * chunk + v, T.ramp(0, 1, LANES)]
                            ),
                        )
        for r in T.unroll(count):
            for v in T.unroll(chunk):
                lanes[T.ramp(0, 1, LANES)] = T.cast(
                    acc[r * chunk + v] + T.broadcast((128 - constants[2]) * totals[r], LANES), "float32x16"
                ) * T.broadcast(out_scale[0], LANES)
                if d % LANES == 0:
                    out[
                        b // heads,
                        b % heads,
                        T.min(first_row + r, rows - 1),
                        T.ramp((part * chunk + v) * LANES, 1, LANES),
                    ] = lanes[T.ramp(0, 1, LANES)]
                else:
                    for lane in range(T.min(d - (part * chunk + v) * LANES, LANES)):
                        out[
                            b // heads,
                            b % heads,
                            T.min(first_row + r, rows - 1),
                            (part * chunk + v) * LANES + lane,
                        ] = lanes[lane]


def vnni_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Inline function with the arguments of the kernel; relative positions are None where there are none."""
    batch, rows, d = shape.heads, shape.rows, shape.d
    place = KeyVectors.of(shape)
    vectors = place.count
    tile = _TILES[0]
    by_line = place.lines > 0
    if by_line:
        tile = next(t for t in _TILES if vectors % t[0] == 0)
    single = (1, tile[1])
    count, blocks = tile[1], (vectors + 3) // 4
    dv = -(-d // LANES)
    chunk = next(width for width in (4, 3, 2, 1) if dv % width == 0 and width * count <= 28)
    h, w = shape.grid or (1, 1)
    relative = shape.grid is not None
    rel_tile = (4 if count <= 6 else 2 if count <= 12 else 1, count)
    rel_blocks = -(-(2 * h + 2 * w - 2) // (rel_tile[0] * LANES))
    rel_vectors = rel_blocks * rel_tile[0]
    coder = RowCoder(shape.n_thresholds, target)
    small = isinstance(rows, int) and isinstance(shape.tokens, int) and max(rows, shape.tokens) <= _SMALL
    chunk_rows = rows if small else -(-_CHUNK // count) * count

    def logit_of(product, constants, before, vector, dots, r, row_h, row_w):
        """Base-2 logits from integer products and relative positions: of a line, or spread over the keys `before`."""
        scaled = T.shift_right(product, T.broadcast(constants[3], LANES)) * T.broadcast(constants[5], LANES)
        rounding = half(constants[8])
        if by_line:
            line = dots[r, row_h - vector // place.in_line] + rounding
            scaled += T.broadcast(line, LANES) + dots[r, T.ramp(row_w + vector % place.in_line * LANES, 1, LANES)]
        else:
            scaled += T.broadcast(rounding, LANES) + (before if relative else 0)
        return T.shift_right(scaled, T.broadcast(constants[8], LANES))

    def masked(logit, vector):
        """`logit` where lanes hold keys, `PADDING` elsewhere."""
        return T.Select(place.is_key(vector), logit, T.broadcast(T.int32(PADDING), LANES))

    @T.inline
    def keep(acc, tile, constants, logits, highest, vector, dots, rows_h, rows_w, ragged):
        """The logits of a tile, and the largest of each lane to ``highest``."""
        for r in T.unroll(tile[1]):
            for v in T.unroll(tile[0]):
                logits[r, T.ramp((vector + v) * LANES, 1, LANES)] = logit_of(
                    acc[r * tile[0] + v], constants, logits[r, T.ramp((vector + v) * LANES, 1, LANES)], vector + v,
                    dots, r, rows_h[r], rows_w[r],
                )  # fmt: skip
                if ragged:
                    logits[r, T.ramp((vector + v) * LANES, 1, LANES)] = masked(
                        logits[r, T.ramp((vector + v) * LANES, 1, LANES)], vector + v
                    )
                highest[r] = T.max(highest[r], logits[r, T.ramp((vector + v) * LANES, 1, LANES)])

    @T.inline
    def query_chunk(
        q, rel, keys, offset, values, constants, thresholds, table, out_scale, out, b, first_key, start, words, scratch
    ):
        logits = T.alloc_buffer((count, blocks * KEYS), "int32")
        operands = T.alloc_buffer((count, blocks * KEYS), "uint8")
        dots = T.alloc_buffer((count, (rel_vectors + place.in_line) * LANES), "int32")
        acc = T.alloc_buffer((max(tile[0], rel_tile[0]) * count,), "int32x16", scope="local")
        highest = T.alloc_buffer((count,), "int32x16", scope="local")
        row_offset = T.alloc_buffer((count,), "int32", scope="local")
        rows_h = T.alloc_buffer((count,), "int32", scope="local")
        rows_w = T.alloc_buffer((count,), "int32", scope="local")
        sums = T.alloc_buffer((count,), "int32", scope="local")
        shift = T.alloc_buffer((count,), "int32", scope="local")
        totals = T.alloc_buffer((count,), "int32", scope="local")
        for r in range(count):
            for t in range(blocks * KEYS - vectors * LANES):
                logits[r, vectors * LANES + t] = PADDING
        for j in range((T.min(rows - start, chunk_rows) + count - 1) // count):
            first_row = start + j * count
            if relative:
                relative_block(q, b, first_row, rows, d, constants, rel_tile, *rel, rel_blocks, acc, row_offset, dots)
                for r in range(count):
                    row = T.cast(T.min(first_row + r, rows - 1), "int32")
                    rows_h[r] = row // w + h - 1
                    rows_w[r] = 2 * h - 1 + w - 1 - row % w
                    if not by_line:
                        relative_logits(dots, logits, r, row, h, w, 2 * h - 1)
            query_offsets(q, b, first_row, rows, count, d, constants, row_offset)
            for r in T.unroll(count):
                highest[r] = T.broadcast(T.int32(PADDING), LANES)
            if by_line:
                for i in range(vectors // tile[0]):
                    block = first_key + i * tile[0]
                    dot_tile(acc, q, b, first_row, rows, tile, keys, block, offset, block * LANES, row_offset, d // 4)
                    keep(acc, tile, constants, logits, highest, i * tile[0], dots, rows_h, rows_w, w % LANES > 0)
            else:
                for i in range(place.tokens // (tile[0] * LANES)):
                    block = first_key + i * tile[0]
                    dot_tile(acc, q, b, first_row, rows, tile, keys, block, offset, block * LANES, row_offset, d // 4)
                    keep(acc, tile, constants, logits, highest, i * tile[0], dots, rows_h, rows_w, False)
                for i in range(vectors - place.tokens // (tile[0] * LANES) * tile[0]):
                    vector = place.tokens // (tile[0] * LANES) * tile[0] + i
                    block = first_key + vector
                    dot_tile(acc, q, b, first_row, rows, single, keys, block, offset, block * LANES, row_offset, d // 4)
                    keep(acc, single, constants, logits, highest, vector, dots, rows_h, rows_w, True)
            normalise_rows(logits, highest, count, vectors, sums, shift)
            for r in range(count):
                coder.encode(logits, r, blocks, shift, scratch, words, thresholds, table, operands, totals)
            second_product(
                operands, totals, values, first_key * 4, vectors, constants, out_scale, out, b, shape.merged, first_row,
                rows, count, chunk, dv, d,
            )  # fmt: skip

    @T.inline
    def relative_tables(rel_h, rel_w, constants, packed, offset, scale):
        pack_relative(rel_h, 2 * h - 1, 0, False, d, constants, constants[6], packed, offset, scale)
        pack_relative(rel_w, 2 * w - 1, 2 * h - 1, by_line, d, constants, constants[7], packed, offset, scale)

    @T.inline
    def body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out):
        rel_packed = T.alloc_buffer((rel_vectors, d // 4, LANES, 4), "int8")
        rel_offset = T.alloc_buffer((rel_vectors * LANES,), "int32")
        rel_scale = T.alloc_buffer((rel_vectors * LANES,), "int32")
        if relative:
            relative_tables(rel_h, rel_w, constants, rel_packed, rel_offset, rel_scale)
        rel = (rel_packed, rel_offset, rel_scale)
        if small:
            for b in T.parallel(batch):
                keys = T.alloc_buffer((vectors, d // 4, LANES, 4), "int8")
                offset = T.alloc_buffer((vectors * LANES,), "int32")
                values = T.alloc_buffer((vectors * 4, dv, LANES), "int32")
                words = T.alloc_buffer((64,), "int16", scope="local")
                scratch = T.alloc_buffer((coder.scratch,), "int32", scope="local")
                coder.prepare(scratch, words, thresholds, table)
                for i in range(vectors):
                    pack_vector(k, v, constants, b, place, i, 0, d, keys, offset, values)
                query_chunk(
                    q, rel, keys, offset, values, constants, thresholds, table, out_scale, out, b, 0, 0, words, scratch
                )
        else:
            keys = T.alloc_buffer((batch * vectors, d // 4, LANES, 4), "int8")
            offset = T.alloc_buffer((batch * vectors * LANES,), "int32")
            values = T.alloc_buffer((batch * vectors * 4, dv, LANES), "int32")
            chunks = (rows + chunk_rows - 1) // chunk_rows
            for task in T.parallel(batch * blocks):
                b = task // blocks
                for i in range(T.min(vectors - task % blocks * 4, 4)):
                    pack_vector(k, v, constants, b, place, task % blocks * 4 + i, b * vectors, d, keys, offset, values)
            for task in T.parallel(batch * chunks):
                words = T.alloc_buffer((64,), "int16", scope="local")
                scratch = T.alloc_buffer((coder.scratch,), "int32", scope="local")
                coder.prepare(scratch, words, thresholds, table)
                query_chunk(
                    q, rel, keys, offset, values, constants, thresholds, table, out_scale, out, task // chunks,
                    task // chunks * vectors, task % chunks * chunk_rows, words, scratch,
                )  # fmt: skip

    return body
