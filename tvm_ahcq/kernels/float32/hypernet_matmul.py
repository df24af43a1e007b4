"""Every mask's value at every pixel: product of the masks' channel weights with the pixels' channels."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.errors import AhcqError
from tvm_ahcq.kernels.common.vector import LANES, extent

from .gelu import gelu_of

_BLOCK = 512
"""Pixels of one parallel task."""


def _first(task: Expr, tasks: int, pixels: int, i: Expr) -> Expr:
    """Vector `i` of a task: place of its first pixel in the whole batch."""
    return task // tasks * pixels + task % tasks * _BLOCK + i * LANES


def hypernet_matmul(b: int | Expr, masks: int, pixels: int, channels: int, activation: str) -> PrimFunc:
    """Kernel of ``out[b, m, p] = sum over c of weight[b, m, c] * activation(x[b, p, c])``.

    Its arguments are, in order, ``weight`` float32 ``(B, M, C)``; ``x`` float32 ``(B, P, C)``; and the output, float32
    ``(B, M, P)``. Sums run over the channels in order.

    Parameters
    ----------
    b : int or Expr
        Batch; anything but an int makes a kernel for any batch.
    masks, pixels, channels : int
        M, P and C; P is a multiple of 16.
    activation : str
        ``"identity"`` or ``"gelu"``.
    """
    if pixels % LANES or activation not in ("identity", "gelu"):
        raise AhcqError(
            f"hypernet_matmul of {pixels} pixels with activation {activation!r}; expected a multiple of {LANES}, and "
            "'identity' or 'gelu'"
        )
    batch, tasks = extent(b, "b"), -(-pixels // _BLOCK)
    act = gelu_of if activation == "gelu" else lambda x, lanes: x

    @T.prim_func(s_tir=True)
    def main(weight_handle: T.handle, x_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_hypernet_matmul", "tirx.noalias": True, "tirx.is_scheduled": True})
        weight = T.match_buffer(weight_handle, (batch, masks, channels), "float32", align=4)
        x_buffer = T.match_buffer(x_handle, (batch, pixels, channels), "float32", align=4)
        out = T.match_buffer(out_handle, (batch, masks, pixels), "float32", align=4)
        x = T.decl_buffer((batch * pixels * channels,), "float32", data=x_buffer.data, align=4)
        for task in T.parallel(batch * tasks):
            sums = T.alloc_buffer((masks,), "float32x16", scope="local")
            value = T.alloc_buffer((1,), "float32x16", scope="local")
            for i in range(T.min(pixels - task % tasks * _BLOCK, _BLOCK) // LANES):
                for m in T.unroll(masks):
                    sums[m] = T.broadcast(T.float32(0), LANES)
                for c in range(channels):
                    value[0] = act(x[T.ramp(_first(task, tasks, pixels, i) * channels + c, channels, LANES)], LANES)
                    for m in T.unroll(masks):
                        sums[m] = sums[m] + T.broadcast(weight[task // tasks, m, c], LANES) * value[0]
                for m in T.unroll(masks):
                    out[task // tasks, m, T.ramp(task % tasks * _BLOCK + i * LANES, 1, LANES)] = sums[m]

    return main
