"""Log-domain integer attention for any LLVM target: one query row at a time, on centred 16-bit keys and values."""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from tvm_ahcq.kernels.common.fixed_point import rounding_shift
from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.target import HostTarget

from .softmax_codes import PADDING, AttentionShape, encode_row, normalise, operand_coder, relative_logits

_BLOCK = 64


@T.inline
def relative_dots(query, rel, count, d, dots, first, shift, multiplier):
    """Scaled products of one query with `count` relative positions, to ``dots[0, first:]``."""
    total = T.alloc_buffer((1,), "int32", scope="local")
    for t in range(count):
        total[0] = 0
        for c in range(d):
            total[0] = total[0] + T.cast(query[c], "int32") * T.cast(rel[t, c], "int32")
        dots[0, first + t] = rounding_shift(total[0], shift, 1) * multiplier


@T.inline
def weighted_sum(operands, tokens, values, b, d, acc):
    """``acc = operands @ values``; most operands of a long row are 0, and skipped."""
    for c in range(d):
        acc[c] = 0
    for t in range(tokens):
        if operands[0, t] != T.uint8(0):
            for c in range(d):
                acc[c] = acc[c] + T.cast(operands[0, t], "int32") * T.cast(values[b, t, c], "int32")


def generic_body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Inline function with the arguments of the kernel; relative positions are None where there are none."""
    heads, rows, tokens, d = shape.heads, shape.rows, shape.tokens, shape.d
    vectors, blocks = (tokens + LANES - 1) // LANES, (tokens + _BLOCK - 1) // _BLOCK
    h, w = shape.grid or (1, 1)
    relative = shape.grid is not None
    coder = operand_coder(shape.n_thresholds, target)

    @T.inline
    def body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out):
        keys = T.alloc_buffer((heads, tokens, d), "int16")
        values = T.alloc_buffer((heads, tokens, d), "int16")
        for task in T.parallel(heads * blocks):
            b = task // blocks
            first = task % blocks * _BLOCK
            for t in range(T.min(tokens - first, _BLOCK)):
                for c in range(d):
                    keys[b, first + t, c] = T.cast(T.cast(k[b, first + t, c], "int32") - constants[1], "int16")
                    values[b, first + t, c] = T.cast(T.cast(v[b, first + t, c], "int32") - constants[2], "int16")
        for task in T.parallel(heads * rows):
            b = task // rows
            row = task % rows
            query = T.alloc_buffer((d,), "int16", scope="local")
            logits = T.alloc_buffer((1, vectors * LANES), "int32")
            operands = T.alloc_buffer((1, vectors * LANES), "uint8")
            dots = T.alloc_buffer((1, 2 * h + 2 * w - 2), "int32")
            total = T.alloc_buffer((1,), "int32", scope="local")
            offset = T.alloc_buffer((1,), "int32", scope="local")
            scratch = T.alloc_buffer((coder.scratch,), "int32", scope="local")
            acc = T.alloc_buffer((d,), "int32", scope="local")
            for c in range(d):
                query[c] = T.cast(T.cast(q[b, row, c], "int32") - constants[0], "int16")
            if relative:
                relative_dots(query, rel_h, 2 * h - 1, d, dots, 0, constants[4], constants[6])
                relative_dots(query, rel_w, 2 * w - 1, d, dots, 2 * h - 1, constants[4], constants[7])
                relative_logits(dots, logits, 0, row, h, w, 2 * h - 1)
            for t in range(tokens):
                total[0] = 0
                for c in range(d):
                    total[0] = total[0] + T.cast(query[c], "int32") * T.cast(keys[b, t, c], "int32")
                total[0] = rounding_shift(total[0], constants[3], 1) * constants[5]
                if relative:
                    total[0] = total[0] + logits[0, t]
                logits[0, t] = rounding_shift(total[0], constants[8], 1)
            for t in range(vectors * LANES - tokens):
                logits[0, tokens + t] = PADDING
            normalise(logits, 0, vectors, offset)
            coder.prepare(scratch, thresholds, table)
            encode_row(coder, logits, 0, vectors, offset, scratch, thresholds, table, operands, total)
            weighted_sum(operands, tokens, values, b, d, acc)
            for c in range(d):
                out[b // shape.merged, b % shape.merged, row, c] = T.cast(acc[c], "float32") * out_scale[0]

    return body
