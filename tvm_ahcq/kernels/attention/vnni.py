"""Log-domain integer attention with AVX512-VNNI.

Keys and values are packed once a head. A block of query rows then keeps its logits in the cache from the first matrix
product to the second: the scores of all queries with all keys are never in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.target import HostTarget

from .context import AttentionContext, AttentionShape
from .relative_pack import PackedRelative, pack_relative
from .softmax_codes import PADDING
from .vnni_pack import PackedKeys, pack_vector
from .vnni_products import QueryTile, RelativeRows, first_product, relative_positions, second_product
from .vnni_softmax_codes import KEYS, RowBuffers, RowCoderBuffers, normalise_rows
from .vnni_tiling import AttentionTiling, attention_tiling


@dataclass(frozen=True)
class _Chunk:
    """Queries of one parallel task, and the packed keys that they meet.

    Attributes
    ----------
    attn : AttentionContext
        The kernel.
    tiling : AttentionTiling
        Tiling of the kernel.
    relative : PackedRelative
        Packed relative positions.
    keys : PackedKeys
        Packed keys and values.
    b : Expr
        Head.
    first_key : Expr
        First vector of the head's keys.
    start : Expr
        First query row.
    """

    attn: AttentionContext
    tiling: AttentionTiling
    relative: PackedRelative
    keys: PackedKeys
    b: Expr
    first_key: Expr
    start: Expr


@T.inline
def _query_tile(chunk, tile, coder_buffers):
    """Attention of a register tile of query rows."""
    tiling = T.meta_var(chunk.tiling)
    if tiling.relative:
        relative_positions(tile, chunk.relative)
    first_product(tile, chunk.keys)
    normalise_rows(chunk.attn, tile.rows, tiling.count, tiling.vectors)
    for r in range(tiling.count):
        tiling.coder.encode(coder_buffers, tile.rows, r, tiling.blocks)
    second_product(tile, chunk.keys)


@T.inline
def _query_chunk(chunk, coder_buffers):
    """The queries of one parallel task, a tile of rows at a time."""
    tiling = T.meta_var(chunk.tiling)
    count = T.meta_var(tiling.count)
    logits = T.alloc_buffer((count, tiling.blocks * KEYS), "int32")
    operands = T.alloc_buffer((count, tiling.blocks * KEYS), "uint8")
    dots = T.alloc_buffer((count, (tiling.relative_vectors + tiling.place.in_line) * LANES), "int32")
    acc = T.alloc_buffer((max(tiling.tile.vectors, tiling.relative_tile.vectors) * count,), "int32x16", scope="local")
    highest = T.alloc_buffer((count,), "int32x16", scope="local")
    row_offset = T.alloc_buffer((count,), "int32", scope="local")
    rows_h = T.alloc_buffer((count,), "int32", scope="local")
    rows_w = T.alloc_buffer((count,), "int32", scope="local")
    sums = T.alloc_buffer((count,), "int32", scope="local")
    shift = T.alloc_buffer((count,), "int32", scope="local")
    totals = T.alloc_buffer((count,), "int32", scope="local")
    rows = T.meta_var(RowBuffers(logits, highest, sums, shift, operands, totals))
    relative = T.meta_var(RelativeRows(dots, rows_h, rows_w))
    for r in range(count):
        for t in range(tiling.blocks * KEYS - tiling.vectors * LANES):
            logits[r, tiling.vectors * LANES + t] = PADDING
    for j in range((T.min(chunk.attn.shape.queries - chunk.start, tiling.chunk_rows) + count - 1) // count):
        first_row = chunk.start + j * count
        _query_tile(
            chunk,
            QueryTile(chunk.attn, tiling, chunk.b, first_row, chunk.first_key, acc, row_offset, rows, relative),
            coder_buffers,
        )


@T.inline
def _whole_heads(tiling, attn, relative):
    """Each head is one parallel task, from packing to the output."""
    for b in T.parallel(attn.shape.heads):
        packed = T.alloc_buffer((tiling.vectors, attn.shape.d // 4, LANES, 4), "int8")
        offset = T.alloc_buffer((tiling.vectors * LANES,), "int32")
        values = T.alloc_buffer((tiling.vectors * 4, tiling.value_vectors, LANES), "int32")
        words = T.alloc_buffer((64,), "int16", scope="local")
        scratch = T.alloc_buffer((tiling.coder.scratch,), "int32", scope="local")
        keys = T.meta_var(PackedKeys(packed, offset, values))
        coder_buffers = T.meta_var(RowCoderBuffers(scratch, attn.thresholds, attn.table, words))
        tiling.coder.prepare(coder_buffers)
        for i in range(tiling.vectors):
            pack_vector(attn, b, tiling.place, i, 0, keys)
        _query_chunk(_Chunk(attn, tiling, relative, keys, b, 0, 0), coder_buffers)


@T.inline
def _chunks_of_queries(tiling, attn, relative):
    """All heads are packed first; then chunks of queries are the parallel tasks."""
    heads = T.meta_var(attn.shape.heads)
    packed = T.alloc_buffer((heads * tiling.vectors, attn.shape.d // 4, LANES, 4), "int8")
    offset = T.alloc_buffer((heads * tiling.vectors * LANES,), "int32")
    values = T.alloc_buffer((heads * tiling.vectors * 4, tiling.value_vectors, LANES), "int32")
    keys = T.meta_var(PackedKeys(packed, offset, values))
    for task in T.parallel(heads * tiling.blocks):
        b = task // tiling.blocks
        for i in range(T.min(tiling.vectors - task % tiling.blocks * 4, 4)):
            pack_vector(attn, b, tiling.place, task % tiling.blocks * 4 + i, b * tiling.vectors, keys)
    for task in T.parallel(heads * tiling.chunks):
        words = T.alloc_buffer((64,), "int16", scope="local")
        scratch = T.alloc_buffer((tiling.coder.scratch,), "int32", scope="local")
        coder_buffers = T.meta_var(RowCoderBuffers(scratch, attn.thresholds, attn.table, words))
        tiling.coder.prepare(coder_buffers)
        _query_chunk(
            _Chunk(
                attn,
                tiling,
                relative,
                keys,
                task // tiling.chunks,
                task // tiling.chunks * tiling.vectors,
                task % tiling.chunks * tiling.chunk_rows,
            ),
            coder_buffers,
        )


@T.inline
def _attention(tiling, attend, attn):
    packed = T.alloc_buffer((tiling.relative_vectors, attn.shape.d // 4, LANES, 4), "int8")
    offset = T.alloc_buffer((tiling.relative_vectors * LANES,), "int32")
    scale = T.alloc_buffer((tiling.relative_vectors * LANES,), "int32")
    relative = T.meta_var(PackedRelative(packed, offset, scale))
    if tiling.relative:
        pack_relative(attn, tiling.by_line, relative)
    attend(tiling, attn, relative)


def vnni_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.AttentionContext`."""
    tiling = attention_tiling(shape, target)
    return partial(_attention, tiling, _whole_heads if tiling.whole_heads else _chunks_of_queries)
