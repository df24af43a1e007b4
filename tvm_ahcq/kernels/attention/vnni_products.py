"""Matrix products of log-domain attention with AVX512-VNNI, for one register tile of query rows."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.fixed_point import half
from tvm_ahcq.kernels.common.vector import LANES, four_codes, vpdpbusd

from .context import AttentionContext
from .softmax_codes import PADDING, relative_logits
from .vnni_softmax_codes import KEYS, RowBuffers
from .vnni_tiling import AttentionTiling, RegisterTile


@dataclass(frozen=True)
class RelativeRows:
    """Relative positions of a tile of query rows.

    Attributes
    ----------
    dots : Buffer
        Scaled products of each row with all relative positions, int32 ``(rows, positions)``.
    rows_h, rows_w : Buffer
        Places of the first vertical and horizontal product of each row, int32 ``(rows,)``.
    """

    dots: Buffer
    rows_h: Buffer
    rows_w: Buffer


@dataclass(frozen=True)
class QueryTile:
    """A register tile of query rows of one head.

    Attributes
    ----------
    attn : AttentionContext
        The kernel.
    tiling : AttentionTiling
        Tiling of the kernel.
    b : Expr
        Head.
    first_row : Expr
        First query row.
    first_key : Expr
        First vector of the head's keys.
    acc : Buffer
        Integer products, int32x16.
    row_offset : Buffer
        Term to add to products with each row, int32 ``(rows,)``: correction for packing, and rounding.
    rows : RowBuffers
        Logits to operands.
    relative : RelativeRows
        Products with relative positions.
    """

    attn: AttentionContext
    tiling: AttentionTiling
    b: Expr
    first_row: Expr
    first_key: Expr
    acc: Buffer
    row_offset: Buffer
    rows: RowBuffers
    relative: RelativeRows

    @property
    def d(self) -> int:
        """Channels of a head."""
        return self.attn.shape.d

    def row(self, r: Expr) -> Expr:
        """Query row `r` of the tile."""
        return self.attn.query_row(self.first_row, r)

    def query(self, r: Expr, channels: Expr) -> Expr:
        """Codes of query row `r`."""
        return self.attn.q[self.b, self.row(r), channels]


@T.inline
def _dot_tile(tile, size, packed, block, first_offset):
    """Centred dot products of the rows of a tile with `size.vectors` vectors, packed from `block` on."""
    for r in T.unroll(size.rows):
        for v in T.unroll(size.vectors):
            tile.acc[r * size.vectors + v] = packed.offset[T.ramp(first_offset + v * LANES, 1, LANES)] + T.broadcast(
                tile.row_offset[r], LANES
            )
    for c in range(tile.d // 4):
        for r in T.unroll(size.rows):
            for v in T.unroll(size.vectors):
                tile.acc[r * size.vectors + v] = vpdpbusd(
                    tile.acc[r * size.vectors + v],
                    four_codes(tile.query(r, T.ramp(c * 4, 1, 4))),
                    packed.packed[block + v, c, 0, T.ramp(0, 1, 64)],
                )


@T.inline
def _relative_dots(tile, size, relative):
    """Scaled products of the rows of a tile with all relative positions, to ``dots``."""
    for r in T.unroll(size.rows):
        tile.row_offset[r] = half(tile.attn.rel_shift)
    for block in range(tile.tiling.relative_blocks):
        first = block * size.vectors * LANES
        _dot_tile(tile, size, relative, block * size.vectors, first)
        for r in T.unroll(size.rows):
            for v in T.unroll(size.vectors):
                tile.relative.dots[r, T.ramp(first + v * LANES, 1, LANES)] = (
                    T.shift_right(tile.acc[r * size.vectors + v], T.broadcast(tile.attn.rel_shift, LANES))
                    * relative.scale[T.ramp(first + v * LANES, 1, LANES)]
                )


@T.inline
def relative_positions(tile, relative):
    """Products of the rows of a tile with relative positions, spread over the keys unless keys lie by line."""
    shape = T.meta_var(tile.attn.shape)
    _relative_dots(tile, tile.tiling.relative_tile, relative)
    for r in range(tile.tiling.count):
        row = T.cast(tile.row(r), "int32")
        tile.relative.rows_h[r] = row // shape.width + shape.height - 1
        tile.relative.rows_w[r] = 2 * shape.height - 1 + shape.width - 1 - row % shape.width
        if not tile.tiling.by_line:
            relative_logits(tile.relative.dots, tile.rows.logits, r, row, shape.height, shape.width)


@T.inline
def _query_offsets(tile):
    """Correction of products for keys packed as code - 128 instead of code - zero, plus the rounding term."""
    for r in T.unroll(tile.tiling.count):
        tile.row_offset[r] = 0
        for c in range(tile.d):
            tile.row_offset[r] = tile.row_offset[r] + T.cast(tile.query(r, c), "int32")
        tile.row_offset[r] = tile.row_offset[r] * (128 - tile.attn.k_zero) + half(tile.attn.qk_shift)


def _logit_of(tile: QueryTile, product: Expr, vector: Expr, r: Expr) -> Expr:
    """Base-2 logits from integer products and relative positions: of a line, or spread over the keys before."""
    attn, tiling, relative = tile.attn, tile.tiling, tile.relative
    scaled = T.shift_right(product, T.broadcast(attn.qk_shift, LANES)) * T.broadcast(attn.qk_multiplier, LANES)
    rounding = half(attn.shift)
    if tiling.by_line:
        in_line = tiling.place.in_line
        line = relative.dots[r, relative.rows_h[r] - vector // in_line] + rounding
        by_column = relative.dots[r, T.ramp(relative.rows_w[r] + vector % in_line * LANES, 1, LANES)]
        scaled += T.broadcast(line, LANES) + by_column
    else:
        before = tile.rows.logits[r, T.ramp(vector * LANES, 1, LANES)] if tiling.relative else 0
        scaled += T.broadcast(rounding, LANES) + before
    return T.shift_right(scaled, T.broadcast(attn.shift, LANES))


def _masked(tile: QueryTile, logit: Expr, vector: Expr) -> Expr:
    """`logit` where lanes hold keys, `PADDING` elsewhere."""
    return T.Select(tile.tiling.place.is_key(vector), logit, T.broadcast(T.int32(PADDING), LANES))


@T.inline
def _keep_logits(tile, size, vector, ragged):
    """The logits of a tile, and the largest of each lane to ``highest``."""
    rows = T.meta_var(tile.rows)
    for r in T.unroll(size.rows):
        for v in T.unroll(size.vectors):
            rows.logits[r, T.ramp((vector + v) * LANES, 1, LANES)] = _logit_of(
                tile, tile.acc[r * size.vectors + v], vector + v, r
            )
            if ragged:
                rows.logits[r, T.ramp((vector + v) * LANES, 1, LANES)] = _masked(
                    tile, rows.logits[r, T.ramp((vector + v) * LANES, 1, LANES)], vector + v
                )
            rows.highest[r] = T.max(rows.highest[r], rows.logits[r, T.ramp((vector + v) * LANES, 1, LANES)])


@T.inline
def _logits_of_vectors(tile, size, keys, vector, ragged):
    """Logits of the rows of a tile with `size.vectors` vectors of keys, the first of which is `vector`."""
    block = tile.first_key + vector
    _dot_tile(tile, size, keys, block, block * LANES)
    _keep_logits(tile, size, vector, ragged)


@T.inline
def first_product(tile, keys):
    """Logits of the rows of a tile with all keys, and the largest of each lane."""
    tiling = T.meta_var(tile.tiling)
    _query_offsets(tile)
    for r in T.unroll(tiling.count):
        tile.rows.highest[r] = T.broadcast(T.int32(PADDING), LANES)
    if tiling.by_line:
        for i in range(tiling.vectors // tiling.tile.vectors):
            _logits_of_vectors(tile, tiling.tile, keys, i * tiling.tile.vectors, tile.attn.shape.width % LANES > 0)
    else:
        for i in range(tiling.full_tiles):
            _logits_of_vectors(tile, tiling.tile, keys, i * tiling.tile.vectors, False)
        for i in range(tiling.vectors - tiling.full_tiles * tiling.tile.vectors):
            vector = tiling.full_tiles * tiling.tile.vectors + i
            _logits_of_vectors(tile, RegisterTile(1, tiling.count), keys, vector, True)


@T.inline
def _store_output(tile, r, vector, products, lanes):
    """Store one vector of channels of query row `r`."""
    attn = T.meta_var(tile.attn)
    heads = T.meta_var(tile.attn.shape.output_heads)
    lanes[T.ramp(0, 1, LANES)] = T.cast(
        products + T.broadcast((128 - attn.v_zero) * tile.rows.totals[r], LANES), "float32x16"
    ) * T.broadcast(attn.scale(tile.rows.totals[r]), LANES)
    if tile.d % LANES == 0:
        attn.out[tile.b // heads, tile.b % heads, tile.row(r), T.ramp(vector * LANES, 1, LANES)] = lanes[
            T.ramp(0, 1, LANES)
        ]
    else:
        for lane in range(T.min(tile.d - vector * LANES, LANES)):
            attn.out[tile.b // heads, tile.b % heads, tile.row(r), vector * LANES + lane] = lanes[lane]


@T.inline
def second_product(tile, keys):
    """``out = float32(operands @ (v - v_zero)) * scale`` of a tile, by `value_chunk` vectors of channels."""
    count = T.meta_var(tile.tiling.count)
    chunk = T.meta_var(tile.tiling.value_chunk)
    acc = T.alloc_buffer((count * chunk,), "int32x16", scope="local")
    lanes = T.alloc_buffer((LANES,), "float32", scope="local")
    for part in range(tile.tiling.value_vectors // chunk):
        for i in T.unroll(count * chunk):
            acc[i] = T.broadcast(0, LANES)
        for j in range(tile.tiling.vectors):
            for s in T.unroll(4):
                for r in T.unroll(count):
                    for v in T.unroll(chunk):
                        acc[r * chunk + v] = vpdpbusd(
                            acc[r * chunk + v],
                            four_codes(tile.rows.operands[r, T.ramp(j // 4 * KEYS + s * 16 + j % 4 * 4, 1, 4)]),
                            T.reinterpret(
                                "int8x64",
                                keys.values[tile.first_key * 4 + j * 4 + s, part * chunk + v, T.ramp(0, 1, LANES)],
                            ),
                        )
        for r in T.unroll(count):
            for v in T.unroll(chunk):
                _store_output(tile, r, part * chunk + v, acc[r * chunk + v], lanes)
