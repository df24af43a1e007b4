"""Matrix products of log-domain attention with AVX2 or AVX-VNNI, for one register tile of query rows.

With AVX2, products of bytes are summed in 16 bits. How many are, follows from the largest code, and for the second
product from the sum of a row's operands, which bounds every partial sum.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.avx2 import BYTES, LANES, MAX_WORD, any_bit, dot_bytes, pair_products, sum_pairs
from tvm_ahcq.kernels.common.fixed_point import half
from tvm_ahcq.kernels.common.vector import repeat_codes

from .avx2_pack import PackedKeys
from .avx2_softmax_codes import RowBuffers
from .avx2_tiling import BLOCK, ROWS, Avx2Tiling
from .context import AttentionContext
from .relative_pack import PackedRelative
from .softmax_codes import PADDING, relative_logits

SPARSE = 1024
"""From so many keys on, the second product skips keys whose operands are all 0, a row at a time."""

_SPARSE_VECTORS = 8
"""Vectors of channels whose sums stay in registers meanwhile."""


@dataclass(frozen=True)
class Sums:
    """Sums of a register tile, two vectors a row.

    Attributes
    ----------
    words : Buffer
        int16x16 ``(2 * rows,)``.
    totals : Buffer
        int32x8 ``(2 * rows,)``.
    """

    words: Buffer
    totals: Buffer


@dataclass(frozen=True)
class RelativeRows:
    """Relative positions of a tile of query rows.

    Attributes
    ----------
    dots : Buffer
        Scaled products of each row with all relative positions, int32 ``(rows, positions)``.
    rows_h, rows_w : Buffer
        Places of the first vertical and horizontal product of each row, int32 ``(rows,)``.
    packed : PackedRelative
        Packed relative positions.
    """

    dots: Buffer
    rows_h: Buffer
    rows_w: Buffer
    packed: PackedRelative


@dataclass(frozen=True)
class QueryTile:
    """A register tile of query rows of one head.

    Attributes
    ----------
    attn : AttentionContext
        The kernel.
    tiling : Avx2Tiling
        Tiling of the kernel.
    b : Expr
        Head.
    first_row : Expr
        First query row.
    first_key : Expr
        First vector of the head's keys.
    packed : PackedKeys
        Packed keys and values.
    sums : Sums
        Of products.
    rows : RowBuffers
        Logits to operands.
    relative : RelativeRows
        Products with relative positions.
    """

    attn: AttentionContext
    tiling: Avx2Tiling
    b: Expr
    first_row: Expr
    first_key: Expr
    packed: PackedKeys
    sums: Sums
    rows: RowBuffers
    relative: RelativeRows

    def row(self, r: Expr) -> Expr:
        """Query row `r` of the tile."""
        return self.attn.query_row(self.first_row, r)

    def query(self, r: Expr, step: Expr) -> Expr:
        """Four codes of query row `r`, an int32."""
        return T.reinterpret("int32", self.attn.q[self.b, self.row(r), T.ramp(step * 4, 1, 4)])

    def operands(self, r: Expr, quadruple: Expr) -> Expr:
        """Operands of row `r` for four keys, an int32."""
        return T.reinterpret("int32", self.rows.operands[r, T.ramp(quadruple * 4, 1, 4)])

    def keys(self, vector: Expr, step: Expr) -> Expr:
        """Four channels of 8 keys."""
        return self.packed.keys[self.first_key + vector, step, T.ramp(0, 1, BYTES)]

    def values(self, vector: Expr, quadruple: Expr) -> Expr:
        """Four keys of 8 channels."""
        return self.packed.values[self.first_key * 2 + quadruple, vector, T.ramp(0, 1, BYTES)]

    def positions(self, vector: Expr, step: Expr) -> Expr:
        """Four channels of 8 relative positions."""
        packed = self.relative.packed.packed
        return T.reinterpret("int8x32", packed[vector, step, 0, T.ramp(0, 1, BYTES)])


@T.inline
def _sum_dots(sums, codes, columns, vector, steps):
    """As :func:`_sum_products`, in 32 bits."""
    for c in range(steps):
        for r in T.unroll(ROWS):
            for u in T.unroll(2):
                sums.totals[r * 2 + u] = dot_bytes(
                    sums.totals[r * 2 + u], repeat_codes(codes(r, c), "uint8", LANES), columns(vector + u, c)
                )


@T.inline
def _sum_in_words(sums, codes, columns, vector, steps, depth):
    """As :func:`_sum_products`, in 16 bits."""
    for part in range((steps + depth - 1) // depth):
        for i in T.unroll(2 * ROWS):
            sums.words[i] = T.broadcast(T.int16(0), 2 * LANES)
        for c in range(T.min(steps - part * depth, depth)):
            for r in T.unroll(ROWS):
                for u in T.unroll(2):
                    sums.words[r * 2 + u] = sums.words[r * 2 + u] + pair_products(
                        repeat_codes(codes(r, part * depth + c), "uint8", LANES), columns(vector + u, part * depth + c)
                    )
        for i in T.unroll(2 * ROWS):
            sums.totals[i] = sums.totals[i] + sum_pairs(sums.words[i])


@T.inline
def _sum_products(tile, codes, columns, vector, steps, depth):
    """Dot products of `steps` steps of a tile's rows with two vectors, `depth` steps at a time in 16 bits."""
    for i in T.unroll(2 * ROWS):
        tile.sums.totals[i] = T.broadcast(0, LANES)
    if tile.tiling.dot:
        _sum_dots(tile.sums, codes, columns, vector, steps)
    else:
        _sum_in_words(tile.sums, codes, columns, vector, steps, depth)


@T.inline
def relative_positions(tile):
    """Products of the rows of a tile with relative positions, spread over the keys unless keys lie by line."""
    shape = T.meta_var(tile.attn.shape)
    relative = T.meta_var(tile.relative)
    for pair in range(tile.tiling.relative_vectors // 2):
        _sum_products(tile, tile.query, tile.positions, pair * 2, tile.tiling.steps, tile.tiling.relative_depth)
        for r in T.unroll(ROWS):
            for u in T.unroll(2):
                first = (pair * 2 + u) * LANES
                relative.dots[r, T.ramp(first, 1, LANES)] = (
                    T.shift_right(
                        tile.sums.totals[r * 2 + u]
                        + relative.packed.offset[T.ramp(first, 1, LANES)]
                        + T.broadcast(half(tile.attn.rel_shift), LANES),
                        T.broadcast(tile.attn.rel_shift, LANES),
                    )
                    * relative.packed.scale[T.ramp(first, 1, LANES)]
                )
    for r in range(ROWS):
        row = T.cast(tile.row(r), "int32")
        relative.rows_h[r] = row // shape.width + shape.height - 1
        relative.rows_w[r] = 2 * shape.height - 1 + shape.width - 1 - row % shape.width
        if not tile.tiling.by_line:
            relative_logits(relative.dots, tile.rows.logits, r, row, shape.height, shape.width)


def _logit_of(tile: QueryTile, product: Expr, vector: Expr, r: Expr) -> Expr:
    """Base-2 logits from integer products and relative positions: of a line, or spread over the keys before."""
    attn, place, relative = tile.attn, tile.tiling.place, tile.relative
    scaled = T.shift_right(product, T.broadcast(attn.qk_shift, LANES)) * T.broadcast(attn.qk_multiplier, LANES)
    rounding = half(attn.shift)
    if tile.tiling.by_line:
        y = T.min(vector // place.in_line, place.lines - 1)
        line = relative.dots[r, relative.rows_h[r] - y] + rounding
        by_column = relative.dots[r, T.ramp(relative.rows_w[r] + vector % place.in_line * LANES, 1, LANES)]
        scaled += T.broadcast(line, LANES) + by_column
    else:
        scaled += T.broadcast(rounding, LANES)
        scaled += tile.rows.logits[r, T.ramp(vector * LANES, 1, LANES)] if tile.tiling.relative else 0
    logit = T.shift_right(scaled, T.broadcast(attn.shift, LANES))
    if tile.tiling.ragged:
        logit = T.Select(place.is_key(vector), logit, T.broadcast(T.int32(PADDING), LANES))
    return logit


@T.inline
def first_product(tile):
    """Logits of the rows of a tile with all keys, and the largest of each lane."""
    tiling = T.meta_var(tile.tiling)
    rows = T.meta_var(tile.rows)
    for r in T.unroll(ROWS):
        rows.highest[r] = T.broadcast(T.int32(PADDING), LANES)
    for pair in range(tiling.vectors // 2):
        _sum_products(tile, tile.query, tile.keys, pair * 2, tiling.steps, tiling.query_depth)
        for r in T.unroll(ROWS):
            for u in T.unroll(2):
                vector = pair * 2 + u
                tile.sums.totals[r * 2 + u] = _logit_of(
                    tile,
                    tile.sums.totals[r * 2 + u]
                    + tile.packed.offset[T.ramp((tile.first_key + vector) * LANES, 1, LANES)],
                    vector,
                    r,
                )
                rows.logits[r, T.ramp(vector * LANES, 1, LANES)] = tile.sums.totals[r * 2 + u]
                rows.highest[r] = T.max(rows.highest[r], tile.sums.totals[r * 2 + u])
    if tiling.odd_lines:
        for r in range(ROWS):
            rows.logits[r, T.ramp(tiling.place.count * LANES, 1, LANES)] = T.broadcast(T.int32(PADDING), LANES)


@T.inline
def _store_output(tile, r, vector, total, lanes):
    """Store one vector of channels of query row `r`."""
    attn = T.meta_var(tile.attn)
    heads = T.meta_var(tile.attn.shape.output_heads)
    d = T.meta_var(tile.attn.shape.value_channels)
    lanes[T.ramp(0, 1, LANES)] = T.cast(total, "float32x8") * T.broadcast(attn.scale(tile.rows.totals[r]), LANES)
    if d % LANES == 0:
        if vector * LANES < d:
            attn.out[tile.b // heads, tile.b % heads, tile.row(r), T.ramp(vector * LANES, 1, LANES)] = lanes[
                T.ramp(0, 1, LANES)
            ]
    else:
        for lane in range(T.min(d - vector * LANES, LANES)):
            attn.out[tile.b // heads, tile.b % heads, tile.row(r), vector * LANES + lane] = lanes[lane]


@T.inline
def _dense_product(tile, depth, lanes):
    """Operands times values, of all rows and keys."""
    for pair in range(tile.tiling.value_vectors // 2):
        _sum_products(tile, tile.operands, tile.values, pair * 2, tile.tiling.blocks * (BLOCK // 4), depth)
        for r in T.unroll(ROWS):
            for u in T.unroll(2):
                _store_output(tile, r, pair * 2 + u, tile.sums.totals[r * 2 + u], lanes)


@T.inline
def _sparse_product(tile, blocks, lanes):
    """Operands times values, `blocks` blocks at a time in 16 bits, without the keys whose operands are 0."""
    vectors = T.meta_var(min(tile.tiling.value_vectors, _SPARSE_VECTORS))
    words = T.alloc_buffer((vectors,), "int16x16", scope="local")
    totals = T.alloc_buffer((vectors,), "int32x8", scope="local")
    for r, part in T.grid(ROWS, (tile.tiling.value_vectors + vectors - 1) // vectors):
        for i in T.unroll(vectors):
            totals[i] = T.broadcast(0, LANES)
        for group in range((T.cast(tile.tiling.blocks, "int32") + blocks - 1) // blocks):
            for i in T.unroll(vectors):
                words[i] = T.broadcast(T.int16(0), 2 * LANES)
            for j in range(T.min(T.cast(tile.tiling.blocks, "int32") - group * blocks, blocks)):
                block = group * blocks + j
                if any_bit(tile.rows.operands[r, T.ramp(block * BLOCK, 1, BLOCK)]):
                    for s in range(BLOCK // 4):
                        if tile.operands(r, block * (BLOCK // 4) + s) != 0:
                            for i in T.unroll(vectors):
                                operand = repeat_codes(tile.operands(r, block * (BLOCK // 4) + s), "uint8", LANES)
                                value = tile.values(
                                    T.min(part * vectors + i, tile.tiling.value_vectors - 1), block * (BLOCK // 4) + s
                                )
                                if tile.tiling.dot:
                                    totals[i] = dot_bytes(totals[i], operand, value)
                                else:
                                    words[i] = words[i] + pair_products(operand, value)
            for i in T.unroll(vectors):
                totals[i] = totals[i] + sum_pairs(words[i])
        for i in T.unroll(vectors):
            _store_output(tile, r, part * vectors + i, totals[i], lanes)


@T.inline
def second_product(tile):
    """``out = float32(operands @ (v - v_zero)) * scale`` of a tile.

    No partial sum exceeds a sum of operands times the largest code: of a row's, or of as many blocks as are summed in
    16 bits. Where not even those of a block fit, a few keys at a time do for any operands.
    """
    total = T.alloc_buffer((1,), "int32", scope="local")
    peak = T.alloc_buffer((1,), "int32", scope="local")
    blocks = T.alloc_buffer((1,), "int32", scope="local")
    lanes = T.alloc_buffer((LANES,), "float32", scope="local")
    limit = T.meta_var(MAX_WORD // tile.attn.shape.top)
    total[0] = 0
    peak[0] = 1
    for r in T.unroll(ROWS):
        total[0] = T.max(total[0], tile.rows.totals[r])
        peak[0] = T.max(peak[0], tile.rows.peaks[r])
    blocks[0] = T.Select(total[0] <= limit, T.cast(tile.tiling.blocks, "int32"), limit // peak[0])
    if T.And(blocks[0] > 0, tile.attn.shape.keys > SPARSE):
        _sparse_product(tile, blocks[0], lanes)
    else:
        _dense_product(tile, T.Select(blocks[0] > 0, blocks[0] * (BLOCK // 4), T.int32(tile.tiling.value_depth)), lanes)
