"""Log-domain integer attention with AVX2, and with AVX-VNNI.

Keys and values are packed once a head. A tile of query rows then keeps its logits in the cache from the first matrix
product to the second, as with AVX512-VNNI. Products of bytes are summed in 16 bits, or by AVX-VNNI in 32; probabilities
are compared with thresholds in 16 bits, and operands are looked up in a register.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.avx2 import BYTES, LANES, MAX_WORD, WORDS

from .avx2_pack import PackedKeys, pack_vector
from .avx2_products import (
    QueryTile,
    RelativeRows,
    Sums,
    first_product,
    relative_positions,
    second_product,
)
from .avx2_softmax_codes import (
    MAX_THRESHOLDS,
    CoderTables,
    RowBuffers,
    encode_row,
    normalise_rows,
    prepare_tables,
    subtract_maximum,
)
from .avx2_tiling import BLOCK, MAX_BITS, ROWS, Avx2Tiling, avx2_tiling
from .context import AttentionContext, AttentionShape
from .relative_pack import PackedRelative, pack_relative

_VECTORS = BLOCK // LANES
"""Vectors of keys in a block."""


@dataclass(frozen=True)
class _Chunk:
    """Queries of one parallel task, and the packed keys that they meet.

    Attributes
    ----------
    attn : AttentionContext
        The kernel.
    tiling : Avx2Tiling
        Tiling of the kernel.
    relative : PackedRelative
        Packed relative positions.
    packed : PackedKeys
        Packed keys and values.
    b : Expr
        Head.
    first_key : Expr
        First vector of the head's keys.
    start : Expr
        First query row.
    """

    attn: AttentionContext
    tiling: Avx2Tiling
    relative: PackedRelative
    packed: PackedKeys
    b: Expr
    first_key: Expr
    start: Expr


@T.inline
def _query_tile(tile, tables):
    """Attention of a register tile of query rows."""
    tiling = T.meta_var(tile.tiling)
    if tiling.relative:
        relative_positions(tile)
    first_product(tile)
    if tile.attn.shape.row_relative:
        subtract_maximum(tile.rows, tiling.vectors // 2)
    else:
        normalise_rows(tile.rows, tiling.vectors // 2)
    for r in range(ROWS):
        encode_row(tile.attn, tables, tile.rows, r, tiling.blocks)
    second_product(tile)


@T.inline
def _query_chunk(chunk):
    """The queries of one parallel task, a tile of rows at a time."""
    tiling = T.meta_var(chunk.tiling)
    positions = T.meta_var((tiling.relative_vectors + tiling.place.in_line) * LANES)
    logits = T.alloc_buffer((ROWS, tiling.blocks * BLOCK), "int32")
    below = T.alloc_buffer((ROWS, tiling.blocks * BLOCK), "int16")
    operands = T.alloc_buffer((ROWS, tiling.blocks * BLOCK), "uint8")
    dots = T.alloc_buffer((ROWS, positions), "int32")
    words = T.alloc_buffer((2 * ROWS,), "int16x16", scope="local")
    totals = T.alloc_buffer((2 * ROWS,), "int32x8", scope="local")
    highest = T.alloc_buffer((ROWS,), "int32x8", scope="local")
    power_sums = T.alloc_buffer((LANES,), "int32", scope="local")
    log2_sums = T.alloc_buffer((LANES,), "int32", scope="local")
    operand_sums = T.alloc_buffer((ROWS,), "int32", scope="local")
    peaks = T.alloc_buffer((ROWS,), "int32", scope="local")
    rows_h = T.alloc_buffer((ROWS,), "int32", scope="local")
    rows_w = T.alloc_buffer((ROWS,), "int32", scope="local")
    limits = T.alloc_buffer((MAX_THRESHOLDS,), "int16", scope="local")
    third = T.alloc_buffer((WORDS,), "int16", scope="local")
    fourth = T.alloc_buffer((WORDS,), "int16", scope="local")
    table = T.alloc_buffer((BYTES,), "uint8", scope="local")
    sums = T.meta_var(Sums(words, totals))
    rows = T.meta_var(RowBuffers(logits, highest, below, power_sums, log2_sums, operands, operand_sums, peaks))
    relative = T.meta_var(RelativeRows(dots, rows_h, rows_w, chunk.relative))
    tables = T.meta_var(CoderTables(limits, third, fourth, table))
    prepare_tables(chunk.attn, tables)
    for r in range(LANES):
        power_sums[r] = 1
    for r in range(ROWS):
        for t in range(tiling.blocks * BLOCK - tiling.vectors * LANES):
            below[r, tiling.vectors * LANES + t] = T.int16(MAX_WORD)
    for j in range((T.min(chunk.attn.shape.queries - chunk.start, tiling.chunk_rows) + ROWS - 1) // ROWS):
        first_row = chunk.start + j * ROWS
        _query_tile(
            QueryTile(chunk.attn, tiling, chunk.b, first_row, chunk.first_key, chunk.packed, sums, rows, relative),
            tables,
        )


@T.inline
def _whole_heads(tiling, attn, relative):
    """Each head is one parallel task, from packing to the output."""
    vectors = T.meta_var(tiling.blocks * _VECTORS)
    for b in T.parallel(attn.shape.heads):
        keys = T.alloc_buffer((vectors, tiling.steps, BYTES), "int8")
        offset = T.alloc_buffer((vectors * LANES,), "int32")
        values = T.alloc_buffer((vectors * 2, tiling.value_vectors, BYTES), "int8")
        packed = T.meta_var(PackedKeys(keys, offset, values))
        for i in range(vectors):
            pack_vector(attn, b, tiling.place, i, 0, packed)
        _query_chunk(_Chunk(attn, tiling, relative, packed, b, 0, 0))


@T.inline
def _chunks_of_queries(tiling, attn, relative):
    """All heads are packed first; then chunks of queries are the parallel tasks."""
    heads = T.meta_var(attn.shape.heads)
    vectors = T.meta_var(tiling.blocks * _VECTORS)
    keys = T.alloc_buffer((heads * vectors, tiling.steps, BYTES), "int8")
    offset = T.alloc_buffer((heads * vectors * LANES,), "int32")
    values = T.alloc_buffer((heads * vectors * 2, tiling.value_vectors, BYTES), "int8")
    packed = T.meta_var(PackedKeys(keys, offset, values))
    for task in T.parallel(heads * tiling.blocks):
        b = task // tiling.blocks
        for i in range(_VECTORS):
            pack_vector(attn, b, tiling.place, task % tiling.blocks * _VECTORS + i, b * vectors, packed)
    for task in T.parallel(heads * tiling.chunks):
        b = task // tiling.chunks
        _query_chunk(_Chunk(attn, tiling, relative, packed, b, b * vectors, task % tiling.chunks * tiling.chunk_rows))


@T.inline
def _attention(tiling, attend, attn):
    positions = T.alloc_buffer((tiling.relative_vectors, tiling.steps, LANES, 4), "int8")
    offset = T.alloc_buffer((tiling.relative_vectors * LANES,), "int32")
    scale = T.alloc_buffer((tiling.relative_vectors * LANES,), "int32")
    relative = T.meta_var(PackedRelative(positions, offset, scale))
    if tiling.relative:
        pack_relative(attn, tiling.by_line, relative)
    attend(tiling, attn, relative)


def supports_avx2(shape: AttentionShape) -> bool:
    """True if products of codes fit in 16 bits, codes of probabilities in half a byte, and channels are whole steps."""
    return shape.bits <= MAX_BITS and shape.n_thresholds <= MAX_THRESHOLDS and shape.d % 4 == 0


def avx2_body(shape: AttentionShape, dot: bool = False) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.AttentionContext`; `dot` for processors with AVX-VNNI."""
    tiling = avx2_tiling(shape, dot)
    return partial(_attention, tiling, _whole_heads if tiling.whole_heads else _chunks_of_queries)
