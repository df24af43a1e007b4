"""Log-domain integer attention for any LLVM target: one query row at a time, on centred 16-bit keys and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.fixed_point import exp2_fixed, log2_fixed, rounding_shift
from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.target import HostTarget

from .context import AttentionShape
from .softmax_codes import PADDING, CoderBuffers, operand_coder, reduce_vector, relative_logits

_BLOCK = 64


@dataclass(frozen=True)
class _Row:
    """One query row of head `b`: centred codes, products with relative positions, logits, and probability operands."""

    b: Expr
    row: Expr
    query: Buffer
    dots: Buffer
    logits: Buffer
    operands: Buffer
    offset: Buffer
    total: Buffer
    acc: Buffer


def _vectors(shape: AttentionShape) -> int | Expr:
    """Vectors of 16 keys, the last one padded."""
    return (shape.keys + LANES - 1) // LANES


@T.inline
def _pack(attn, keys, values):
    """Codes of keys and values less their zero points."""
    blocks = T.meta_var((attn.shape.keys + _BLOCK - 1) // _BLOCK)
    for task in T.parallel(attn.shape.heads * blocks):
        b = task // blocks
        first = task % blocks * _BLOCK
        for t in range(T.min(attn.shape.keys - first, _BLOCK)):
            for c in range(attn.shape.d):
                keys[b, first + t, c] = T.cast(T.cast(attn.k[b, first + t, c], "int32") - attn.k_zero, "int16")
            for c in range(attn.shape.value_channels):
                values[b, first + t, c] = T.cast(T.cast(attn.v[b, first + t, c], "int32") - attn.v_zero, "int16")


@T.inline
def _relative_dots(attn, row, rel, count, first, multiplier):
    """Scaled products of a query with `count` relative positions, to ``dots[0, first:]``."""
    total = T.alloc_buffer((1,), "int32", scope="local")
    for t in range(count):
        total[0] = 0
        for c in range(attn.shape.d):
            total[0] = total[0] + T.cast(row.query[c], "int32") * T.cast(rel[t, c], "int32")
        row.dots[0, first + t] = rounding_shift(total[0], attn.rel_shift, 1) * multiplier


@T.inline
def _first_product(attn, row, keys):
    """Base-2 logits of a query with all keys."""
    for t in range(attn.shape.keys):
        row.total[0] = 0
        for c in range(attn.shape.d):
            row.total[0] = row.total[0] + T.cast(row.query[c], "int32") * T.cast(keys[row.b, t, c], "int32")
        row.total[0] = rounding_shift(row.total[0], attn.qk_shift, 1) * attn.qk_multiplier
        if attn.shape.grid is not None:
            row.total[0] = row.total[0] + row.logits[0, t]
        row.logits[0, t] = rounding_shift(row.total[0], attn.shift, 1)
    for t in range(_vectors(attn.shape) * LANES - attn.shape.keys):
        row.logits[0, attn.shape.keys + t] = PADDING


@T.inline
def _normalise(attn, row, vectors):
    """Write the ``c`` of ``-log2(p) = c - logit`` to ``offset[0]``: the maximum plus the logarithm of the sum.

    With row-relative codes, the maximum.
    """
    total = T.alloc_buffer((2,), "int32x16", scope="local")
    highest = T.alloc_buffer((1,), "int32", scope="local")
    total[0] = T.broadcast(T.int32(PADDING), LANES)
    total[1] = T.broadcast(0, LANES)
    for i in range(vectors):
        total[0] = T.max(total[0], row.logits[0, T.ramp(i * LANES, 1, LANES)])
    highest[0] = reduce_vector("smax", total[0])
    if attn.shape.row_relative:
        row.offset[0] = highest[0]
    else:
        for i in range(vectors):
            total[1] = total[1] + exp2_fixed(
                T.broadcast(highest[0], LANES) - row.logits[0, T.ramp(i * LANES, 1, LANES)]
            )
        log2_fixed(reduce_vector("add", total[1]), row.offset)
        row.offset[0] = row.offset[0] + highest[0]


@T.inline
def _encode(coder, buffers, row, vectors):
    """uint8 operands of ``vectors * 16`` keys, and their sum to ``total[0]``."""
    operands = T.alloc_buffer((1,), "int32x16", scope="local")
    sums = T.alloc_buffer((1,), "int32x16", scope="local")
    sums[0] = T.broadcast(0, LANES)
    for i in range(vectors):
        coder.encode(buffers, row.logits[0, T.ramp(i * LANES, 1, LANES)], row.offset, operands)
        sums[0] = sums[0] + operands[0]
        row.operands[0, T.ramp(i * LANES, 1, LANES)] = T.cast(operands[0], "uint8x16")
    row.total[0] = reduce_vector("add", sums[0])


@T.inline
def _second_product(attn, row, values):
    """``acc = operands @ values``; most operands of a long row are 0, and skipped."""
    for c in range(attn.shape.value_channels):
        row.acc[c] = 0
    for t in range(attn.shape.keys):
        if row.operands[0, t] != T.uint8(0):
            for c in range(attn.shape.value_channels):
                row.acc[c] = row.acc[c] + T.cast(row.operands[0, t], "int32") * T.cast(values[row.b, t, c], "int32")


@T.inline
def _query_row(attn, coder, scratch, keys, values, row):
    """Attention of one query."""
    shape = T.meta_var(attn.shape)
    for c in range(shape.d):
        row.query[c] = T.cast(T.cast(attn.q[row.b, row.row, c], "int32") - attn.q_zero, "int16")
    if shape.grid is not None:
        _relative_dots(attn, row, attn.rel_h, 2 * shape.height - 1, 0, attn.rel_h_multiplier)
        _relative_dots(attn, row, attn.rel_w, 2 * shape.width - 1, 2 * shape.height - 1, attn.rel_w_multiplier)
        relative_logits(row.dots, row.logits, 0, row.row, shape.height, shape.width)
    _first_product(attn, row, keys)
    _normalise(attn, row, _vectors(shape))
    buffers = T.meta_var(CoderBuffers(scratch, attn.thresholds, attn.table))
    coder.prepare(buffers)
    _encode(coder, buffers, row, _vectors(shape))
    _second_product(attn, row, values)
    for c in range(shape.value_channels):
        attn.out[row.b // shape.output_heads, row.b % shape.output_heads, row.row, c] = T.cast(
            row.acc[c], "float32"
        ) * attn.scale(row.total[0])


@T.inline
def _tasks(coder, attn):
    shape = T.meta_var(attn.shape)
    keys = T.alloc_buffer((shape.heads, shape.keys, shape.d), "int16")
    values = T.alloc_buffer((shape.heads, shape.keys, shape.value_channels), "int16")
    _pack(attn, keys, values)
    for task in T.parallel(shape.heads * shape.queries):
        b = task // shape.queries
        row = task % shape.queries
        query = T.alloc_buffer((shape.d,), "int16", scope="local")
        logits = T.alloc_buffer((1, _vectors(shape) * LANES), "int32")
        operands = T.alloc_buffer((1, _vectors(shape) * LANES), "uint8")
        dots = T.alloc_buffer((1, 2 * shape.height + 2 * shape.width - 2), "int32")
        total = T.alloc_buffer((1,), "int32", scope="local")
        offset = T.alloc_buffer((1,), "int32", scope="local")
        scratch = T.alloc_buffer((coder.scratch,), "int32", scope="local")
        acc = T.alloc_buffer((shape.value_channels,), "int32", scope="local")
        _query_row(attn, coder, scratch, keys, values, _Row(b, row, query, dots, logits, operands, offset, total, acc))


def generic_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.AttentionContext`."""
    return partial(_tasks, operand_coder(shape.n_thresholds, target))
