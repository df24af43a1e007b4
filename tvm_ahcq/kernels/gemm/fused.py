"""Grouped-scale GEMMs fused with the operator that reads their outputs.

Each computes :func:`.dispatch.grouped_linear` followed by another kernel, bit for bit, without storing the float32
outputs. Outputs are a multiple of 16 and weights are in layout "vnni16".
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import extent
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.target import HostTarget

from .dispatch import packed_linear
from .epilogue import adding, codes, heads, intervals
from .tiling import DEFAULT, LinearSchedule
from .workload import LinearWorkload


def linear_add(
    m: int | Expr,
    workload: LinearWorkload,
    target: HostTarget,
    schedule: LinearSchedule = DEFAULT,
    windows: Windows | None = None,
) -> PrimFunc:
    """Kernel of ``residual + grouped_linear(...)``.

    Its arguments are those of :func:`.dispatch.grouped_linear`, with the ``residual`` float32 ``(R, N)`` before the
    output, which has its shape. ``R`` is `m`; or, with `windows`, the tokens of the images whose windows the `m` rows
    are, those that fill windows up being left out.

    Parameters
    ----------
    m, workload, target, schedule
        As there; with `windows`, `m` is an int.
    windows : Windows, optional
        How rows lie in the images.
    """
    rows = extent(m, "m")
    image_rows = rows
    if windows is not None:
        image_rows = m // (windows.per_image * windows.tokens) * windows.height * windows.width
    operands = packed_linear(rows, workload, target, schedule, adding(windows))

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
        residual = T.match_buffer(residual_handle, (image_rows, workload.outputs), "float32", align=4)
        out = T.match_buffer(out_handle, (image_rows, workload.outputs), "float32", align=4)
        operands((a, w, bounds, multiplier, correction, bias), (residual, out))

    return main


def linear_intervals(
    m: int | Expr,
    workload: LinearWorkload,
    n_thresholds: int,
    target: HostTarget,
    schedule: LinearSchedule = DEFAULT,
) -> PrimFunc:
    """Kernel of ``encode_intervals(grouped_linear(...), thresholds, operands)``.

    Its arguments are those of :func:`.dispatch.grouped_linear`, with ``thresholds`` float32 ``(n_thresholds,)`` and
    ``operands`` uint8 ``(n_thresholds + 1,)`` before the output, uint8 ``(M, N)``.

    Parameters
    ----------
    m, workload, target, schedule
        As there.
    n_thresholds : int
        At most :data:`.epilogue.MAX_THRESHOLDS`.
    """
    rows = extent(m, "m")
    epilogue = intervals(n_thresholds, target)
    run = packed_linear(rows, workload, target, schedule, epilogue)

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
        out = T.match_buffer(out_handle, (rows, workload.outputs), "uint8", align=1)
        run((a, w, bounds, multiplier, correction, bias), (thresholds, operands, out))

    return main


def linear_codes(
    m: int | Expr,
    workload: LinearWorkload,
    bits: int,
    target: HostTarget,
    schedule: LinearSchedule = DEFAULT,
) -> PrimFunc:
    """Kernel of the uniform codes of ``grouped_linear(...)``, one scale for all outputs.

    Its arguments are those of :func:`.dispatch.grouped_linear`, with ``scale`` float32 ``(1,)`` and ``zero_point``
    int32 ``(1,)`` before the output, uint8 ``(M, N)``.

    Parameters
    ----------
    m, workload, target, schedule
        As there.
    bits : int
        Bits of a code.
    """
    rows = extent(m, "m")
    run = packed_linear(rows, workload, target, schedule, codes(bits))

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
        out = T.match_buffer(out_handle, (rows, workload.outputs), "uint8", align=1)
        run((a, w, bounds, multiplier, correction, bias), (scale, zero, out))

    return main


def linear_heads(
    m: int,
    workload: LinearWorkload,
    tokens: int,
    count: int,
    bits: int,
    target: HostTarget,
    schedule: LinearSchedule = DEFAULT,
) -> PrimFunc:
    """Kernel of the codes of queries, keys and values, head by head, from one linear layer.

    Its arguments are those of :func:`.dispatch.grouped_linear`, with ``scale`` float32 ``(1,)`` of queries, keys and
    values, and ``zero_point`` int32 ``(1,)`` of each, before the output, uint8 ``(3, M / tokens * count, tokens, d)``.

    Parameters
    ----------
    m, workload, target, schedule
        As there; the outputs are ``3 * count * d``, with `d`, the channels of a head, a multiple of 8,
        and ``count * d`` of 16.
    tokens, count : int
        Tokens of a sequence, and heads.
    bits : int
        Bits of a code.
    """
    d = workload.outputs // (3 * count)
    run = packed_linear(m, workload, target, schedule, heads(tokens, count, d, bits))
    return _heads_kernel(run, (3, m // tokens * count, tokens, d))


def _heads_kernel(run: Callable[..., None], shape: tuple[int, ...]) -> PrimFunc:
    """Wrap `run`, from :func:`.dispatch.packed_linear`, in a kernel with codes of `shape`."""

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
        out = T.match_buffer(out_handle, shape, "uint8", align=1)
        scales = (q_scale, k_scale, v_scale)
        zeros = (q_zero, k_zero, v_zero)
        run((a, w, bounds, multiplier, correction, bias), (scales, zeros, out))

    return main
