"""Grouped-scale integer GEMM: chooses the kernel for a target and a weight layout."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import PrimFunc

from ..errors import TargetError
from ..target import HostTarget
from .linear_rows import linear_rows
from .linear_vnni import linear_vnni


def grouped_linear(m: int | Expr, n: int, kp: int, groups: int, layout: str, target: HostTarget) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.reference.grouped_linear`.

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
        "vnni16" (AVX512-VNNI only) or "rows".
    target : HostTarget
        Processor that the kernel is for.

    Raises
    ------
    TargetError
        The target has no kernel for the layout.
    """
    if layout == "rows":
        return linear_rows(m, n, kp, groups, target)
    if layout == "vnni16" and target.isa == "avx512vnni":
        return linear_vnni(m, n, kp, groups)
    raise TargetError(
        f"no grouped_linear for weight layout {layout!r} on target {target.name!r}; pack with layout {target.layout!r}."
    )
