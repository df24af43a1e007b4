"""Grouped-scale integer GEMM: arguments of the kernels, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.errors import TargetError
from tvm_ahcq.kernels.common.vector import LANES, extent
from tvm_ahcq.target import HostTarget

from .amx import amx_body
from .dot4 import dot4_body
from .epilogue import PLAIN, Epilogue
from .generic import generic_body
from .tiling import DEFAULT, LinearSchedule
from .vnni import vnni_body


def grouped_linear(
    m: int | Expr,
    n: int,
    kp: int,
    groups: int,
    layout: str,
    target: HostTarget,
    weight_bits: int = 8,
    schedule: LinearSchedule = DEFAULT,
) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.core.reference.grouped_linear`.

    Its arguments are, in order, ``a`` uint8 ``(M, Kp)``; packed weights int8, ``(ceil(N / 16), Kp / 4, 16, 4)`` in
    layout "vnni16" or ``(N, Kp)`` in layout "rows"; ``bounds`` int32 ``(G + 1,)``, the channels at which groups begin
    and end, multiples of 4 from 0 to ``Kp``; ``multiplier`` float32 ``(G, N)``; ``correction`` int32 ``(G, N)``;
    ``bias`` float32 ``(N,)``; and the output, float32 ``(M, N)``.

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    n : int
        Outputs.
    kp, groups : int
        Channels, padding included, and channel groups. Which channels form a group is known at run time only, so that
        layers of one shape share a kernel.
    layout : str
        "vnni16" (every target but "generic") or "rows".
    target : HostTarget
        Processor that the kernel is for.
    weight_bits : int
        Bits of a weight's code; fewer than 8 bound the operands by ``2**weight_bits - 1``, which AVX2 and plain NEON
        turn into speed.
    schedule : LinearSchedule
        Blocking; layout "rows" has one only.

    Raises
    ------
    TargetError
        The target has no kernel for the layout.
    """
    rows = extent(m, "m")
    return linear_kernel(rows, n, linear_operands(rows, n, kp, groups, layout, target, weight_bits, schedule))


def linear_kernel(rows: int | Expr, n: int, operands: Callable[..., None]) -> PrimFunc:
    """The kernel around `operands` that gives the outputs as they are."""

    @T.prim_func(s_tir=True)
    def main(
        a: T.handle,
        w: T.handle,
        bounds: T.handle,
        multiplier: T.handle,
        correction: T.handle,
        bias: T.handle,
        out_handle: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_grouped_linear", "tirx.noalias": True, "tirx.is_scheduled": True})
        out = T.match_buffer(out_handle, (rows, n), "float32", align=4)
        operands(a, w, bounds, multiplier, correction, bias, out)

    return main


def linear_operands(
    rows: int | Expr,
    n: int,
    kp: int,
    groups: int,
    layout: str,
    target: HostTarget,
    weight_bits: int,
    schedule: LinearSchedule,
    epilogue: Epilogue = PLAIN,
) -> Callable[..., None]:
    """The whole of a kernel but its output: an inline function of six handles and what the epilogue takes.

    Raises
    ------
    TargetError
        The target has no kernel for the layout.
    """
    weight_shape: tuple[int, ...]
    if layout == "rows":
        weight_shape, body = (n, kp), generic_body(rows, n, groups, target)
    elif layout == "vnni16" and target.layout == "vnni16":
        weight_shape = (-(-n // LANES), kp // 4, LANES, 4)
        if target.isa == "amx":
            body = amx_body(rows, n, kp, groups, schedule=schedule, epilogue=epilogue)
        elif target.isa == "avx512vnni":
            body = vnni_body(rows, n, groups, schedule, epilogue)
        else:
            body = dot4_body(rows, n, groups, target, weight_bits, schedule, epilogue)
    else:
        raise TargetError(
            f"no grouped_linear for weight layout {layout!r} on target {target.name!r}; "
            f"pack with layout {target.layout!r}."
        )
    return match_operands(rows, n, kp, groups, weight_shape, body)


def match_operands(
    rows: int | Expr, n: int, kp: int, groups: int, weight_shape: tuple[int, ...], body: Callable[..., None]
) -> Callable[..., None]:
    """Inline function of six handles and an output that calls `body` with buffers."""

    @T.inline
    def operands(a_handle, w_handle, bounds_handle, multiplier_handle, correction_handle, bias_handle, out):
        a = T.match_buffer(a_handle, (rows, kp), "uint8", align=1)
        w = T.match_buffer(w_handle, weight_shape, "int8", align=1)
        bounds = T.match_buffer(bounds_handle, (groups + 1,), "int32", align=4)
        multiplier = T.match_buffer(multiplier_handle, (groups, n), "float32", align=4)
        correction = T.match_buffer(correction_handle, (groups, n), "int32", align=4)
        bias = T.match_buffer(bias_handle, (n,), "float32", align=4)
        body(a, w, bounds, multiplier, correction, bias, out)

    return operands
