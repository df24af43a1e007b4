"""Grouped-scale GEMMs whose outputs go on without passing through memory as float32.

Each is :func:`.linear.grouped_linear` followed by another kernel, bit for bit. Outputs are a multiple of 16 and weights
are in layout "vnni16".
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import extent
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.target import HostTarget

from .dispatch import linear_operands
from .epilogue import adding, codes, heads, intervals
from .tiling import DEFAULT, LinearSchedule


def linear_add(
    m: int | Expr,
    n: int,
    kp: int,
    groups: int,
    target: HostTarget,
    weight_bits: int = 8,
    schedule: LinearSchedule = DEFAULT,
    windows: Windows | None = None,
) -> PrimFunc:
    """Kernel of ``residual + grouped_linear(...)``.

    Its arguments are those of :func:`.linear.grouped_linear`, with the ``residual`` float32 ``(R, N)`` before the
    output, which has its shape. ``R`` is `m`; or, with `windows`, the tokens of the images whose windows the `m` rows
    are, those that fill windows up being left out.

    Parameters
    ----------
    m, n, kp, groups, target, weight_bits, schedule
        As there; with `windows`, `m` is an int.
    windows : Windows, optional
        How rows lie in the images.
    """
    rows = extent(m, "m")
    image_rows = rows
    if windows is not None:
        image_rows = m // (windows.per_image * windows.tokens) * windows.height * windows.width
    operands = linear_operands(rows, n, kp, groups, "vnni16", target, weight_bits, schedule, adding(windows))

    @T.prim_func(s_tir=True)
    def main(
        a: T.handle,
        w: T.handle,
        bounds: T.handle,
        multiplier: T.handle,
        correction: T.handle,
        bias: T.handle,
        residual_handle: T.handle,
        out_handle: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_linear_add", "tirx.noalias": True, "tirx.is_scheduled": True})
        residual = T.match_buffer(residual_handle, (image_rows, n), "float32", align=4)
        out = T.match_buffer(out_handle, (image_rows, n), "float32", align=4)
        operands(a, w, bounds, multiplier, correction, bias, (residual, out))

    return main


def linear_intervals(
    m: int | Expr,
    n: int,
    kp: int,
    groups: int,
    n_thresholds: int,
    target: HostTarget,
    weight_bits: int = 8,
    schedule: LinearSchedule = DEFAULT,
) -> PrimFunc:
    """Kernel of ``encode_intervals(grouped_linear(...), thresholds, operands)``.

    Its arguments are those of :func:`.linear.grouped_linear`, with ``thresholds`` float32 ``(n_thresholds,)`` and
    ``operands`` uint8 ``(n_thresholds + 1,)`` before the output, uint8 ``(M, N)``.

    Parameters
    ----------
    m, n, kp, groups, target, weight_bits, schedule
        As there.
    n_thresholds : int
        At most :data:`.linear_epilogue.MAX_THRESHOLDS`.
    """
    rows = extent(m, "m")
    epilogue = intervals(n_thresholds, target)
    run = linear_operands(rows, n, kp, groups, "vnni16", target, weight_bits, schedule, epilogue)

    @T.prim_func(s_tir=True)
    def main(
        a: T.handle,
        w: T.handle,
        bounds: T.handle,
        multiplier: T.handle,
        correction: T.handle,
        bias: T.handle,
        thresholds_handle: T.handle,
        operands_handle: T.handle,
        out_handle: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_linear_intervals", "tirx.noalias": True, "tirx.is_scheduled": True})
        thresholds = T.match_buffer(thresholds_handle, (n_thresholds,), "float32", align=4)
        operands = T.match_buffer(operands_handle, (n_thresholds + 1,), "uint8", align=1)
        out = T.match_buffer(out_handle, (rows, n), "uint8", align=1)
        run(a, w, bounds, multiplier, correction, bias, (thresholds, operands, out))

    return main


def linear_codes(
    m: int | Expr,
    n: int,
    kp: int,
    groups: int,
    bits: int,
    target: HostTarget,
    weight_bits: int = 8,
    schedule: LinearSchedule = DEFAULT,
) -> PrimFunc:
    """Kernel of the uniform codes of ``grouped_linear(...)``, one scale for all outputs.

    Its arguments are those of :func:`.linear.grouped_linear`, with ``scale`` float32 ``(1,)`` and ``zero_point`` int32
    ``(1,)`` before the output, uint8 ``(M, N)``.

    Parameters
    ----------
    m, n, kp, groups, target, weight_bits, schedule
        As there.
    bits : int
        Bits of a code.
    """
    rows = extent(m, "m")
    run = linear_operands(rows, n, kp, groups, "vnni16", target, weight_bits, schedule, codes(bits))

    @T.prim_func(s_tir=True)
    def main(
        a: T.handle,
        w: T.handle,
        bounds: T.handle,
        multiplier: T.handle,
        correction: T.handle,
        bias: T.handle,
        scale_handle: T.handle,
        zero_handle: T.handle,
        out_handle: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_linear_codes", "tirx.noalias": True, "tirx.is_scheduled": True})
        scale = T.match_buffer(scale_handle, (1,), "float32", align=4)
        zero = T.match_buffer(zero_handle, (1,), "int32", align=4)
        out = T.match_buffer(out_handle, (rows, n), "uint8", align=1)
        run(a, w, bounds, multiplier, correction, bias, (scale, zero, out))

    return main


def linear_heads(
    m: int,
    kp: int,
    groups: int,
    tokens: int,
    count: int,
    d: int,
    bits: int,
    target: HostTarget,
    weight_bits: int = 8,
    schedule: LinearSchedule = DEFAULT,
) -> PrimFunc:
    """Kernel of the codes of queries, keys and values, head by head, from one linear layer.

    Its arguments are those of :func:`.linear.grouped_linear`, with ``scale`` float32 ``(1,)`` of queries, keys and
    values, and ``zero_point`` int32 ``(1,)`` of each, before the output, uint8 ``(3, M / tokens * count, tokens, d)``.

    Parameters
    ----------
    m, kp, groups, target, weight_bits, schedule
        As there; the outputs are ``3 * count * d``.
    tokens, count, d : int
        Tokens of a sequence, heads, channels of a head (a multiple of 16).
    bits : int
        Bits of a code.
    """
    n = 3 * count * d
    run = linear_operands(m, n, kp, groups, "vnni16", target, weight_bits, schedule, heads(tokens, count, d, bits))

    @T.prim_func(s_tir=True)
    def main(
        a: T.handle,
        w: T.handle,
        bounds: T.handle,
        multiplier: T.handle,
        correction: T.handle,
        bias: T.handle,
        q_scale_handle: T.handle,
        k_scale_handle: T.handle,
        v_scale_handle: T.handle,
        q_zero_handle: T.handle,
        k_zero_handle: T.handle,
        v_zero_handle: T.handle,
        out_handle: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_linear_heads", "tirx.noalias": True, "tirx.is_scheduled": True})
        q_scale = T.match_buffer(q_scale_handle, (1,), "float32", align=4)
        k_scale = T.match_buffer(k_scale_handle, (1,), "float32", align=4)
        v_scale = T.match_buffer(v_scale_handle, (1,), "float32", align=4)
        q_zero = T.match_buffer(q_zero_handle, (1,), "int32", align=4)
        k_zero = T.match_buffer(k_zero_handle, (1,), "int32", align=4)
        v_zero = T.match_buffer(v_zero_handle, (1,), "int32", align=4)
        out = T.match_buffer(out_handle, (3, m // tokens * count, tokens, d), "uint8", align=1)
        scales = (q_scale, k_scale, v_scale)
        zeros = (q_zero, k_zero, v_zero)
        run(a, w, bounds, multiplier, correction, bias, (scales, zeros, out))

    return main
