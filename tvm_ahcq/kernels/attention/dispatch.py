"""Log-domain integer attention: signatures of the kernels, and selection by shape and target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import extent
from tvm_ahcq.quantizers.core.reference import MAX_KEYS, MAX_KEYS_ROW_RELATIVE
from tvm_ahcq.target import HostTarget

from .avx2 import avx2_body, supports_avx2
from .context import AttentionContext, AttentionShape
from .generic import generic_body
from .short_kv import select_by_keys, short_kv_body, supports_short_kv
from .vnni import vnni_body


def log_attention(shape: AttentionShape, target: HostTarget) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.core.reference.log_attention`.

    Its arguments are, in order, ``q`` uint8 ``(B, Nq, d)``; ``k`` uint8 ``(B, Nk, d)``; ``v`` uint8 ``(B, Nk,
    dv)``; with a grid, ``rel_h`` and ``rel_w`` int8 ``(2 h - 1, d)`` and ``(2 w - 1, d)``; ``constants`` int32
    ``(9,)``: q_zero, k_zero, v_zero, qk_shift, rel_shift, qk_multiplier, rel_h_multiplier, rel_w_multiplier, shift;
    ``log_thresholds`` int32 ``(n,)``, descending, at most :data:`.vnni_softmax_codes.MAX_MINUS_LOG2` where there
    are fewer than 32; ``table`` uint8 ``(n + 1,)`` with ``table[0] = 0``; ``out_scale`` float32 ``(1,)``; and the
    output, float32 ``(B, Nq, dv)``.
    With packed heads, the first argument is all of ``q``, ``k`` and ``v``, uint8 ``(3, B, Nk, d)``, after pooled ``q``
    if there are fewer, and the output is float32 ``(B / heads, Nq, heads * d)``. What differs between sites of equal
    shape is in these tensors, so that they share a kernel. A kernel for any number of keys raises ValueError where
    their sums could leave 32 bits.

    Parameters
    ----------
    shape : AttentionShape
        B, Nq and Nk (anything but an int makes a kernel for any number), d, dv, grid, n, packed heads, and whether
        codes are relative to the row's maximum.
    target : HostTarget
        Processor that the kernel is for.
    """
    shape = replace(
        shape, heads=extent(shape.heads, "b"), queries=extent(shape.queries, "nq"), keys=extent(shape.keys, "nk")
    )
    kernel = _packed_kernel if shape.packed_heads else _kernel
    return kernel(shape, _body(shape, target))


def _body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """Return the fastest inline function for a shape on a target."""
    wide_values = shape.value_channels != shape.d and "avx2" in target.cpu_features
    if (target.isa in ("avx2", "avxvnni") or wide_values) and supports_avx2(shape):
        return avx2_body(shape, dot=target.isa == "avxvnni")
    if "avx512vnni" not in target.cpu_features or shape.d % 4 or shape.value_channels != shape.d:
        return generic_body(shape, target)
    many = vnni_body(shape, target)
    return select_by_keys(shape, short_kv_body(shape, target), many) if supports_short_kv(shape) else many


def _separate_operands(shape: AttentionShape, body: Callable[..., None]) -> Callable[..., None]:
    """Inline function of the handles of q, k, v, of the site's tensors, and of the relative positions' buffers."""
    heads, queries, keys, d, n = shape.heads, shape.queries, shape.keys, shape.d, shape.n_thresholds
    value_d = shape.value_channels
    most = MAX_KEYS_ROW_RELATIVE if shape.row_relative else MAX_KEYS
    any_number = not isinstance(keys, int)
    too_many = ("ValueError", [f"An integer attention has at most {most} keys, whose sums fit 32 bits."])

    @T.inline
    def attend(operands, site, rel_h, rel_w, out_):
        q = T.match_buffer(operands[0], (heads, queries, d), "uint8", align=1)
        k = T.match_buffer(operands[1], (heads, keys, d), "uint8", align=1)
        v = T.match_buffer(operands[2], (heads, keys, value_d), "uint8", align=1)
        constants = T.match_buffer(site[0], (9,), "int32", align=4)
        thresholds = T.match_buffer(site[1], (n,), "int32", align=4)
        table = T.match_buffer(site[2], (n + 1,), "uint8", align=1)
        out_scale = T.match_buffer(site[3], (1,), "float32", align=4)
        out_buffer = T.match_buffer(out_, (heads, queries, value_d), "float32", align=4)
        out = T.decl_buffer((heads, 1, queries, value_d), "float32", data=out_buffer.data, align=4)
        if any_number:
            assert keys <= most, too_many
        body(AttentionContext(shape, q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out))

    return attend


def _kernel(shape: AttentionShape, body: Callable[..., None]) -> PrimFunc:
    """Wrap `body` in a kernel, with relative positions among its arguments where the shape has a grid."""
    attend, h, w, d = _separate_operands(shape, body), shape.height, shape.width, shape.d

    if shape.grid is None:

        @T.prim_func(s_tir=True)
        def plain(
            q: T.handle,
            k: T.handle,
            v: T.handle,
            constants: T.handle,
            thresholds: T.handle,
            table: T.handle,
            scale: T.handle,
            out: T.handle,
        ):
            T.func_attr({"global_symbol": "ahcq_log_attention", "tirx.noalias": True, "tirx.is_scheduled": True})
            attend((q, k, v), (constants, thresholds, table, scale), None, None, out)

        return plain

    @T.prim_func(s_tir=True)
    def relative(
        q: T.handle,
        k: T.handle,
        v: T.handle,
        rel_h_: T.handle,
        rel_w_: T.handle,
        constants: T.handle,
        thresholds: T.handle,
        table: T.handle,
        scale: T.handle,
        out: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_log_attention", "tirx.noalias": True, "tirx.is_scheduled": True})
        rel_h = T.match_buffer(rel_h_, (2 * h - 1, d), "int8", align=1)
        rel_w = T.match_buffer(rel_w_, (2 * w - 1, d), "int8", align=1)
        attend((q, k, v), (constants, thresholds, table, scale), rel_h, rel_w, out)

    return relative


def _packed_operands(shape: AttentionShape, body: Callable[..., None]) -> Callable[..., None]:
    """Inline function of the handles of all operands, of the site's tensors, and of the relative positions' buffers.

    The first are pooled queries, or all operands once more.
    """
    batch, tokens, d, n, heads = shape.heads, shape.keys, shape.d, shape.n_thresholds, shape.output_heads
    queries, size, line = shape.queries, batch * tokens * d, heads * d
    pooled = queries != tokens

    @T.inline
    def attend(pooled_, qkv_, site, rel_h, rel_w, out_):
        qkv = T.match_buffer(qkv_, (3, batch, tokens, d), "uint8", align=1)
        first = T.match_buffer(pooled_, (batch, queries, d), "uint8", align=1) if pooled else qkv
        constants = T.match_buffer(site[0], (9,), "int32", align=4)
        thresholds = T.match_buffer(site[1], (n,), "int32", align=4)
        table = T.match_buffer(site[2], (n + 1,), "uint8", align=1)
        out_scale = T.match_buffer(site[3], (1,), "float32", align=4)
        out_buffer = T.match_buffer(out_, (batch // heads, queries, line), "float32", align=4)
        q = T.decl_buffer((batch, queries, d), "uint8", data=first.data, align=1)
        k = T.decl_buffer((batch, tokens, d), "uint8", data=qkv.data, elem_offset=size, align=1)
        v = T.decl_buffer((batch, tokens, d), "uint8", data=qkv.data, elem_offset=2 * size, align=1)
        out = T.decl_buffer(
            (batch // heads, heads, queries, d),
            "float32",
            data=out_buffer.data,
            strides=[queries * line, d, line, 1],
            align=4,
        )
        body(AttentionContext(shape, q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out))

    return attend


def _packed_kernel(shape: AttentionShape, body: Callable[..., None]) -> PrimFunc:
    """Wrap `body` in a kernel whose operands are parts of one tensor, and whose outputs lie side by side."""
    attend, h, w, d = _packed_operands(shape, body), shape.height, shape.width, shape.d

    if shape.queries != shape.keys:

        @T.prim_func(s_tir=True)
        def pooled(
            q: T.handle,
            qkv: T.handle,
            constants: T.handle,
            thresholds: T.handle,
            table: T.handle,
            scale: T.handle,
            out: T.handle,
        ):
            T.func_attr({"global_symbol": "ahcq_log_attention", "tirx.noalias": True, "tirx.is_scheduled": True})
            attend(q, qkv, (constants, thresholds, table, scale), None, None, out)

        return pooled

    if shape.grid is None:

        @T.prim_func(s_tir=True)
        def plain(
            qkv: T.handle, constants: T.handle, thresholds: T.handle, table: T.handle, scale: T.handle, out: T.handle
        ):
            T.func_attr({"global_symbol": "ahcq_log_attention", "tirx.noalias": True, "tirx.is_scheduled": True})
            attend(qkv, qkv, (constants, thresholds, table, scale), None, None, out)

        return plain

    @T.prim_func(s_tir=True)
    def relative(
        qkv: T.handle,
        rel_h_: T.handle,
        rel_w_: T.handle,
        constants: T.handle,
        thresholds: T.handle,
        table: T.handle,
        scale: T.handle,
        out: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_log_attention", "tirx.noalias": True, "tirx.is_scheduled": True})
        rel_h = T.match_buffer(rel_h_, (2 * h - 1, d), "int8", align=1)
        rel_w = T.match_buffer(rel_w_, (2 * w - 1, d), "int8", align=1)
        attend(qkv, qkv, (constants, thresholds, table, scale), rel_h, rel_w, out)

    return relative
