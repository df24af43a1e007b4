"""Log-domain integer attention with AVX512-VNNI.

Keys and values are packed once a head. A block of query rows then keeps its logits in the cache from the first matrix
product to the second: the scores of all queries with all keys are never in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from tvm_ahcq.kernels.common.fixed_point import half
from tvm_ahcq.kernels.common.vector import LANES, four_codes, vpdpbusd
from tvm_ahcq.target import HostTarget

from .softmax_codes import PADDING, AttentionShape, relative_logits
from .vnni_pack import pack_relative, pack_vector
from .vnni_softmax_codes import KEYS, normalise_rows
from .vnni_tiling import attention_tiling


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
    operands,
    totals,
    values,
    first_value,
    vectors,
    constants,
    out_scale,
    out,
    b,
    heads,
    first_row,
    rows,
    count,
    chunk,
    dv,
    d,
):
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


def _logit_of(plan, product, constants, before, vector, dots, r, row_h, row_w):
    """Base-2 logits from integer products and relative positions: of a line, or spread over the keys `before`."""
    scaled = T.shift_right(product, T.broadcast(constants[3], LANES)) * T.broadcast(constants[5], LANES)
    rounding = half(constants[8])
    if plan.by_line:
        in_line = plan.place.in_line
        line = dots[r, row_h - vector // in_line] + rounding
        scaled += T.broadcast(line, LANES) + dots[r, T.ramp(row_w + vector % in_line * LANES, 1, LANES)]
    else:
        scaled += T.broadcast(rounding, LANES) + (before if plan.relative else 0)
    return T.shift_right(scaled, T.broadcast(constants[8], LANES))


def _masked(plan, logit, vector):
    """`logit` where lanes hold keys, `PADDING` elsewhere."""
    return T.Select(plan.place.is_key(vector), logit, T.broadcast(T.int32(PADDING), LANES))


@T.inline
def _keep(plan, acc, tile, constants, logits, highest, vector, dots, rows_h, rows_w, ragged):
    """The logits of a tile, and the largest of each lane to ``highest``."""
    for r in T.unroll(tile[1]):
        for v in T.unroll(tile[0]):
            logits[r, T.ramp((vector + v) * LANES, 1, LANES)] = _logit_of(
                plan,
                acc[r * tile[0] + v],
                constants,
                logits[r, T.ramp((vector + v) * LANES, 1, LANES)],
                vector + v,
                dots,
                r,
                rows_h[r],
                rows_w[r],
            )
            if ragged:
                logits[r, T.ramp((vector + v) * LANES, 1, LANES)] = _masked(
                    plan, logits[r, T.ramp((vector + v) * LANES, 1, LANES)], vector + v
                )
            highest[r] = T.max(highest[r], logits[r, T.ramp((vector + v) * LANES, 1, LANES)])


@T.inline
def _relative_positions(plan, q, b, first_row, constants, rel, acc, row_offset, logits, dots, rows_h, rows_w):
    """Products of the rows of a tile with relative positions; where each row's begin, or spread over its keys."""
    relative_block(
        q,
        b,
        first_row,
        plan.shape.rows,
        plan.shape.d,
        constants,
        plan.relative_tile,
        *rel,
        plan.relative_blocks,
        acc,
        row_offset,
        dots,
    )
    for r in range(plan.count):
        row = T.cast(T.min(first_row + r, plan.shape.rows - 1), "int32")
        rows_h[r] = row // plan.width + plan.height - 1
        rows_w[r] = 2 * plan.height - 1 + plan.width - 1 - row % plan.width
        if not plan.by_line:
            relative_logits(dots, logits, r, row, plan.height, plan.width, 2 * plan.height - 1)


@T.inline
def _first_product(plan, q, b, first_row, constants, keys, offset, first_key, row_offset, acc, logits, highest, at):
    """Logits of the rows of a tile with all keys; `at` are the relative positions."""
    if plan.by_line:
        for i in range(plan.vectors // plan.tile[0]):
            block = first_key + i * plan.tile[0]
            dot_tile(
                acc,
                q,
                b,
                first_row,
                plan.shape.rows,
                plan.tile,
                keys,
                block,
                offset,
                block * LANES,
                row_offset,
                plan.shape.d // 4,
            )
            _keep(plan, acc, plan.tile, constants, logits, highest, i * plan.tile[0], *at, plan.width % LANES > 0)
    else:
        for i in range(plan.full_tiles):
            block = first_key + i * plan.tile[0]
            dot_tile(
                acc,
                q,
                b,
                first_row,
                plan.shape.rows,
                plan.tile,
                keys,
                block,
                offset,
                block * LANES,
                row_offset,
                plan.shape.d // 4,
            )
            _keep(plan, acc, plan.tile, constants, logits, highest, i * plan.tile[0], *at, False)
        for i in range(plan.vectors - plan.full_tiles * plan.tile[0]):
            vector = plan.full_tiles * plan.tile[0] + i
            block = first_key + vector
            dot_tile(
                acc,
                q,
                b,
                first_row,
                plan.shape.rows,
                (1, plan.count),
                keys,
                block,
                offset,
                block * LANES,
                row_offset,
                plan.shape.d // 4,
            )
            _keep(plan, acc, (1, plan.count), constants, logits, highest, vector, *at, True)


@T.inline
def _query_chunk(
    plan,
    q,
    rel,
    keys,
    offset,
    values,
    constants,
    thresholds,
    table,
    out_scale,
    out,
    b,
    first_key,
    start,
    words,
    scratch,
):
    """The queries of one parallel task, a tile of rows at a time."""
    logits = T.alloc_buffer((plan.count, plan.blocks * KEYS), "int32")
    operands = T.alloc_buffer((plan.count, plan.blocks * KEYS), "uint8")
    dots = T.alloc_buffer((plan.count, (plan.relative_vectors + plan.place.in_line) * LANES), "int32")
    acc = T.alloc_buffer((max(plan.tile[0], plan.relative_tile[0]) * plan.count,), "int32x16", scope="local")
    highest = T.alloc_buffer((plan.count,), "int32x16", scope="local")
    row_offset = T.alloc_buffer((plan.count,), "int32", scope="local")
    rows_h = T.alloc_buffer((plan.count,), "int32", scope="local")
    rows_w = T.alloc_buffer((plan.count,), "int32", scope="local")
    sums = T.alloc_buffer((plan.count,), "int32", scope="local")
    shift = T.alloc_buffer((plan.count,), "int32", scope="local")
    totals = T.alloc_buffer((plan.count,), "int32", scope="local")
    for r in range(plan.count):
        for t in range(plan.blocks * KEYS - plan.vectors * LANES):
            logits[r, plan.vectors * LANES + t] = PADDING
    for j in range((T.min(plan.shape.rows - start, plan.chunk_rows) + plan.count - 1) // plan.count):
        first_row = start + j * plan.count
        if plan.relative:
            _relative_positions(plan, q, b, first_row, constants, rel, acc, row_offset, logits, dots, rows_h, rows_w)
        query_offsets(q, b, first_row, plan.shape.rows, plan.count, plan.shape.d, constants, row_offset)
        for r in T.unroll(plan.count):
            highest[r] = T.broadcast(T.int32(PADDING), LANES)
        _first_product(
            plan,
            q,
            b,
            first_row,
            constants,
            keys,
            offset,
            first_key,
            row_offset,
            acc,
            logits,
            highest,
            (dots, rows_h, rows_w),
        )
        normalise_rows(logits, highest, plan.count, plan.vectors, sums, shift)
        for r in range(plan.count):
            plan.coder.encode(logits, r, plan.blocks, shift, scratch, words, thresholds, table, operands, totals)
        second_product(
            operands,
            totals,
            values,
            first_key * 4,
            plan.vectors,
            constants,
            out_scale,
            out,
            b,
            plan.shape.merged,
            first_row,
            plan.shape.rows,
            plan.count,
            plan.value_chunk,
            plan.value_vectors,
            plan.shape.d,
        )


@T.inline
def _whole_heads(plan, q, k, v, rel, constants, thresholds, table, out_scale, out):
    """Each head is one parallel task, from packing to the output."""
    for b in T.parallel(plan.shape.heads):
        keys = T.alloc_buffer((plan.vectors, plan.shape.d // 4, LANES, 4), "int8")
        offset = T.alloc_buffer((plan.vectors * LANES,), "int32")
        values = T.alloc_buffer((plan.vectors * 4, plan.value_vectors, LANES), "int32")
        words = T.alloc_buffer((64,), "int16", scope="local")
        scratch = T.alloc_buffer((plan.coder.scratch,), "int32", scope="local")
        plan.coder.prepare(scratch, words, thresholds, table)
        for i in range(plan.vectors):
            pack_vector(k, v, constants, b, plan.place, i, 0, plan.shape.d, keys, offset, values)
        _query_chunk(
            plan, q, rel, keys, offset, values, constants, thresholds, table, out_scale, out, b, 0, 0, words, scratch
        )


@T.inline
def _chunks_of_queries(plan, q, k, v, rel, constants, thresholds, table, out_scale, out):
    """All heads are packed first; then chunks of queries are the parallel tasks."""
    keys = T.alloc_buffer((plan.shape.heads * plan.vectors, plan.shape.d // 4, LANES, 4), "int8")
    offset = T.alloc_buffer((plan.shape.heads * plan.vectors * LANES,), "int32")
    values = T.alloc_buffer((plan.shape.heads * plan.vectors * 4, plan.value_vectors, LANES), "int32")
    for task in T.parallel(plan.shape.heads * plan.blocks):
        b = task // plan.blocks
        for i in range(T.min(plan.vectors - task % plan.blocks * 4, 4)):
            pack_vector(
                k,
                v,
                constants,
                b,
                plan.place,
                task % plan.blocks * 4 + i,
                b * plan.vectors,
                plan.shape.d,
                keys,
                offset,
                values,
            )
    for task in T.parallel(plan.shape.heads * plan.chunks):
        words = T.alloc_buffer((64,), "int16", scope="local")
        scratch = T.alloc_buffer((plan.coder.scratch,), "int32", scope="local")
        plan.coder.prepare(scratch, words, thresholds, table)
        _query_chunk(
            plan,
            q,
            rel,
            keys,
            offset,
            values,
            constants,
            thresholds,
            table,
            out_scale,
            out,
            task // plan.chunks,
            task // plan.chunks * plan.vectors,
            task % plan.chunks * plan.chunk_rows,
            words,
            scratch,
        )


def vnni_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Inline function with the arguments of the kernel; relative positions are None where there are none."""
    plan, d, (h, w) = attention_tiling(shape, target), shape.d, shape.grid or (1, 1)
    attend = _whole_heads if plan.whole_heads else _chunks_of_queries

    @T.inline
    def body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out):
        packed = T.alloc_buffer((plan.relative_vectors, d // 4, LANES, 4), "int8")
        offset = T.alloc_buffer((plan.relative_vectors * LANES,), "int32")
        scale = T.alloc_buffer((plan.relative_vectors * LANES,), "int32")
        if plan.relative:
            pack_relative(rel_h, 2 * h - 1, 0, False, d, constants, constants[6], packed, offset, scale)
            pack_relative(rel_w, 2 * w - 1, 2 * h - 1, plan.by_line, d, constants, constants[7], packed, offset, scale)
        attend(plan, q, k, v, (packed, offset, scale), constants, thresholds, table, out_scale, out)

    return body
