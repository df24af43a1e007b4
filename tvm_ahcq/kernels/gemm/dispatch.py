"""Grouped-scale integer GEMM: signatures of the kernels, and selection by layout and target."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.errors import TargetError
from tvm_ahcq.kernels.common.vector import LANES, extent
from tvm_ahcq.target import HostTarget

from .amx import amx_body
from .context import GemmContext
from .dot4 import dot4_body
from .epilogue import PLAIN, Epilogue
from .generic import generic_body
from .tiling import DEFAULT, LinearSchedule
from .vnni import vnni_body
from .workload import LinearWorkload


def grouped_linear(
    m: int | Expr,
    workload: LinearWorkload,
    layout: str,
    target: HostTarget,
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
    workload : LinearWorkload
        N, Kp, G and bits of a weight.
    layout : str
        "vnni16" (every target but "generic") or "rows".
    target : HostTarget
        Processor that the kernel is for.
    schedule : LinearSchedule
        Blocking; layout "rows" has one only.

    Raises
    ------
    TargetError
        The target has no kernel for the layout.
    """
    rows = extent(m, "m")
    if layout == "rows":
        operands = match_operands(rows, workload, generic_body(rows, workload, target))
        return linear_kernel(rows, workload, operands)
    if layout != target.layout:
        raise TargetError(
            f"no grouped_linear for weight layout {layout!r} on target {target.name!r}; "
            f"pack with layout {target.layout!r}."
        )
    return linear_kernel(rows, workload, packed_linear(rows, workload, target, schedule))


def linear_kernel(rows: int | Expr, workload: LinearWorkload, operands: Callable[..., None]) -> PrimFunc:
    """Wrap `operands`, from :func:`match_operands`, in a kernel that stores the outputs as they are."""

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
        out = T.match_buffer(out_handle, (rows, workload.outputs), "float32", align=4)
        operands((a, w, bounds, multiplier, correction, bias), out)

    return main


def packed_linear(
    rows: int | Expr,
    workload: LinearWorkload,
    target: HostTarget,
    schedule: LinearSchedule,
    epilogue: Epilogue = PLAIN,
) -> Callable[..., None]:
    """Return the inline function of a kernel with weights in layout "vnni16": see :func:`match_operands`.

    With another epilogue than `PLAIN`, outputs are a multiple of 16.

    Raises
    ------
    TargetError
        The target has no kernel for the layout.
    """
    if target.isa == "amx":
        body = amx_body(rows, workload, schedule=schedule)
    elif target.isa == "avx512vnni":
        body = vnni_body(rows, workload.outputs, schedule)
    else:
        body = dot4_body(rows, workload, target, schedule)
    return match_operands(rows, workload, body, epilogue, "vnni16")


def match_operands(
    rows: int | Expr,
    workload: LinearWorkload,
    body: Callable[..., None],
    epilogue: Epilogue = PLAIN,
    layout: str = "rows",
) -> Callable[..., None]:
    """Return the inline function of six handles and what the epilogue takes that calls `body` with a context."""
    n, kp, groups = workload.outputs, workload.channels, workload.groups
    weight_shape = (n, kp) if layout == "rows" else (workload.blocks, kp // 4, LANES, 4)

    @T.inline
    def operands(handles, out):
        a = T.match_buffer(handles[0], (rows, kp), "uint8", align=1)
        w = T.match_buffer(handles[1], weight_shape, "int8", align=1)
        bounds = T.match_buffer(handles[2], (groups + 1,), "int32", align=4)
        multiplier = T.match_buffer(handles[3], (groups, n), "float32", align=4)
        correction = T.match_buffer(handles[4], (groups, n), "int32", align=4)
        bias = T.match_buffer(handles[5], (n,), "float32", align=4)
        body(GemmContext(rows, workload, epilogue, a, w, bounds, multiplier, correction, bias, out))

    return operands
