"""Log-domain integer attention: arguments of the kernels, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import extent
from tvm_ahcq.target import HostTarget

from .generic import generic_body
from .short_kv import select_by_keys, short_kv_body, supports_short_kv
from .softmax_codes import AttentionShape
from .vnni import vnni_body


def log_attention(
    batch: int | Expr,
    nq: int | Expr,
    nk: int | Expr,
    d: int,
    grid: tuple[int, int] | None,
    n_thresholds: int,
    target: HostTarget,
    heads: int = 0,
) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.core.reference.log_attention`.

    Its arguments are, in order, ``q`` uint8 ``(B, Nq, d)``; ``k`` and ``v`` uint8 ``(B, Nk, d)``; with a `grid`,
    ``rel_h`` and ``rel_w`` int8 ``(2 h - 1, d)`` and ``(2 w - 1, d)``; ``constants`` int32 ``(9,)``: q_zero, k_zero,
    v_zero, qk_shift, rel_shift, qk_multiplier, rel_h_multiplier, rel_w_multiplier, shift; ``log_thresholds`` int32
    ``(n,)``, descending, at most :data:`.attention_vnni_row.MAX_MINUS_LOG2` where there are fewer than 32; ``table``
    uint8 ``(n + 1,)`` with ``table[0] = 0``; ``out_scale`` float32 ``(1,)``; and the output, float32 ``(B, Nq, d)``.
    With `heads`, the first argument is all of ``q``, ``k`` and ``v``, uint8 ``(3, B, N, d)``, and the output is float32
    ``(B / heads, N, heads * d)``. What differs between sites of equal shape is in these tensors, so that they share a
    kernel.

    Parameters
    ----------
    batch, nq, nk : int or Expr
        Batch times heads, queries, and keys (at most ``reference.MAX_KEYS``); anything but an int makes a kernel for
        any number.
    d : int
        Channels of a head.
    grid : (int, int), optional
        Height and width, ``Nq = Nk = h * w``, if there are decomposed relative positions.
    n_thresholds : int
        Thresholds between the codes of a probability, at least 1.
    target : HostTarget
        Processor that the kernel is for.
    heads : int
        Heads of a self-attention whose operands come together and whose outputs lie side by side; 0 for neither.
    """
    shape = AttentionShape(extent(batch, "b"), extent(nq, "nq"), extent(nk, "nk"), d, grid, n_thresholds, heads or 1)
    around = _with_one_operand if heads else _with_arguments
    return around(shape, _body(shape, target))


def _body(shape: AttentionShape, target: HostTarget) -> Callable[..., None]:
    """The fastest inline function for a shape on a target."""
    if "avx512vnni" not in target.cpu_features or shape.d % 4:
        return generic_body(shape, target)
    many = vnni_body(shape, target)
    return select_by_keys(shape, short_kv_body(shape, target), many) if supports_short_kv(shape) else many


def _with_arguments(shape: AttentionShape, body: Callable[..., None]) -> PrimFunc:
    """The kernel around `body`, with relative positions among its arguments where the shape has a grid."""
    heads, rows, tokens, d, n = shape.heads, shape.rows, shape.tokens, shape.d, shape.n_thresholds
    h, w = shape.grid or (1, 1)

    @T.inline
    def attend(q_, k_, v_, rel_h, rel_w, constants_, thresholds_, table_, scale_, out_):
        q = T.match_buffer(q_, (heads, rows, d), "uint8", align=1)
        k = T.match_buffer(k_, (heads, tokens, d), "uint8", align=1)
        v = T.match_buffer(v_, (heads, tokens, d), "uint8", align=1)
        constants = T.match_buffer(constants_, (9,), "int32", align=4)
        thresholds = T.match_buffer(thresholds_, (n,), "int32", align=4)
        table = T.match_buffer(table_, (n + 1,), "uint8", align=1)
        out_scale = T.match_buffer(scale_, (1,), "float32", align=4)
        out_buffer = T.match_buffer(out_, (heads, rows, d), "float32", align=4)
        out = T.decl_buffer((heads, 1, rows, d), "float32", data=out_buffer.data, align=4)
        body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out)

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
            attend(q, k, v, None, None, constants, thresholds, table, scale, out)

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
        attend(q, k, v, rel_h, rel_w, constants, thresholds, table, scale, out)

    return relative


def _with_one_operand(shape: AttentionShape, body: Callable[..., None]) -> PrimFunc:
    """The kernel around `body` whose operands are parts of one tensor, and whose outputs lie side by side."""
    batch, tokens, d, n, merged = shape.heads, shape.rows, shape.d, shape.n_thresholds, shape.merged
    h, w = shape.grid or (1, 1)
    size, line = batch * tokens * d, merged * d

    @T.inline
    def attend(qkv_, rel_h, rel_w, constants_, thresholds_, table_, scale_, out_):
        qkv = T.match_buffer(qkv_, (3, batch, tokens, d), "uint8", align=1)
        constants = T.match_buffer(constants_, (9,), "int32", align=4)
        thresholds = T.match_buffer(thresholds_, (n,), "int32", align=4)
        table = T.match_buffer(table_, (n + 1,), "uint8", align=1)
        out_scale = T.match_buffer(scale_, (1,), "float32", align=4)
        out_buffer = T.match_buffer(out_, (batch // merged, tokens, line), "float32", align=4)
        q = T.decl_buffer((batch, tokens, d), "uint8", data=qkv.data, align=1)
        k = T.decl_buffer((batch, tokens, d), "uint8", data=qkv.data, elem_offset=size, align=1)
        v = T.decl_buffer((batch, tokens, d), "uint8", data=qkv.data, elem_offset=2 * size, align=1)
        out = T.decl_buffer(
            (batch // merged, merged, tokens, d),
            "float32",
            data=out_buffer.data,
            strides=[tokens * line, d, line, 1],
            align=4,
        )
        body(q, k, v, rel_h, rel_w, constants, thresholds, table, out_scale, out)

    if shape.grid is None:

        @T.prim_func(s_tir=True)
        def plain(
            qkv: T.handle, constants: T.handle, thresholds: T.handle, table: T.handle, scale: T.handle, out: T.handle
        ):
            T.func_attr({"global_symbol": "ahcq_log_attention", "tirx.noalias": True, "tirx.is_scheduled": True})
            attend(qkv, None, None, constants, thresholds, table, scale, out)

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
        attend(qkv, rel_h, rel_w, constants, thresholds, table, scale, out)

    return relative
