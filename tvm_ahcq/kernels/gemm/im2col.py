"""Patches of a convolution as rows of a matrix, on codes."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import extent


def im2col(b: int | Expr, h: int, w: int, c: int, kernel: int) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.core.reference.im2col`.

    Its arguments are, in order, ``codes`` uint8 ``(B, H, W, C)``; ``zero_point`` int32 ``(1,)``; and the output, uint8
    ``(B, H, W, kernel**2 * C)``.

    Parameters
    ----------
    b : int or Expr
        Batch; anything but an int makes a kernel for any batch.
    h, w, c : int
        Height, width and channels.
    kernel : int
        Odd side of the window; stride 1, same-padded.
    """
    batch, margin = extent(b, "b"), kernel // 2

    @T.prim_func(s_tir=True)
    def main(codes_handle: T.handle, zero_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_im2col", "tirx.noalias": True, "tirx.is_scheduled": True})
        codes = T.match_buffer(codes_handle, (batch, h, w, c), "uint8", align=1)
        zero_point = T.match_buffer(zero_handle, (1,), "int32", align=4)
        out = T.match_buffer(out_handle, (batch, h, w, kernel * kernel * c), "uint8", align=1)
        for line in T.parallel(batch * h):
            image = line // h
            y = line % h
            for x, dy, dx in T.grid(w, kernel, kernel):
                if T.And(T.And(y + dy >= margin, y + dy < h + margin), T.And(x + dx >= margin, x + dx < w + margin)):
                    for i in range(c):
                        out[image, y, x, (dy * kernel + dx) * c + i] = codes[image, y + dy - margin, x + dx - margin, i]
                else:
                    for i in range(c):
                        out[image, y, x, (dy * kernel + dx) * c + i] = T.cast(zero_point[0], "uint8")

    return main
