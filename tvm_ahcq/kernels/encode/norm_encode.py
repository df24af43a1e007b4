"""Layer normalisation straight to the codes of a channel-grouped (CAG) quantizer, in image or in window order."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import extent
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.kernels.float32.layer_norm import normalise_row

from .affine import encode_gathered_row, prepare_channels

_BLOCK_ROWS = 32


def norm_encode(
    m: int | Expr, k: int, kp: int, groups: int, bits: int, eps: float, windows: Windows | None = None
) -> PrimFunc:
    """Kernel of :func:`.layer_norm.layer_norm` followed by :func:`.encode_affine.encode_affine`, bit for bit.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``gamma`` and ``beta`` float32 ``(K,)``; ``index`` int32
    ``(Kp,)``, ``bounds`` int32 ``(G + 1,)``, ``scale`` float32 ``(G,)`` and ``zero_point`` int32 ``(G,)`` of the
    quantizer; and the output, uint8 ``(R, Kp)``: ``R`` is `m`, or the tokens of all windows of `m` tokens, of which
    those that fill windows up have the code of 0.

    Parameters
    ----------
    m : int or Expr
        Tokens; anything but an int makes a kernel for any number of them. An int with `windows`.
    k, kp, groups, bits
        As in :func:`.encode_affine.encode_affine`.
    eps : float
        As in :func:`.layer_norm.layer_norm`.
    windows : Windows, optional
        Order of the output's rows.
    """
    tokens, top = extent(m, "m"), 2**bits - 1
    rows = tokens
    if windows is not None:
        rows = m // (windows.height * windows.width) * windows.per_image * windows.tokens

    @T.inline
    def normalise(x, row, gamma, beta, values):
        if windows is None:
            normalise_row(x, row, k, eps, gamma, beta, values, 0)
        else:
            if windows.inside(row):
                normalise_row(x, windows.image_row(row), k, eps, gamma, beta, values, 0)
            else:
                for j in range(k):
                    values[0, j] = T.float32(0)

    @T.prim_func(s_tir=True)
    def main(
        x_handle: T.handle,
        gamma_handle: T.handle,
        beta_handle: T.handle,
        index_handle: T.handle,
        bounds_handle: T.handle,
        scale_handle: T.handle,
        zero_handle: T.handle,
        out_handle: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_norm_encode", "tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (tokens, k), "float32", align=4)
        gamma = T.match_buffer(gamma_handle, (k,), "float32", align=4)
        beta = T.match_buffer(beta_handle, (k,), "float32", align=4)
        index = T.match_buffer(index_handle, (kp,), "int32", align=4)
        bounds = T.match_buffer(bounds_handle, (groups + 1,), "int32", align=4)
        scale = T.match_buffer(scale_handle, (groups,), "float32", align=4)
        zero = T.match_buffer(zero_handle, (groups,), "int32", align=4)
        out = T.match_buffer(out_handle, (rows, kp), "uint8", align=1)
        for task in T.parallel((rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
            scale_of = T.alloc_buffer((k,), "float32")
            zero_of = T.alloc_buffer((k,), "float32")
            source = T.alloc_buffer((kp,), "int32")
            codes = T.alloc_buffer((k + 1,), "uint8")
            values = T.alloc_buffer((1, k), "float32")
            prepare_channels(index, bounds, scale, zero, groups, k, kp, scale_of, zero_of, source)
            for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
                row = task * _BLOCK_ROWS + i
                normalise(x, row, gamma, beta, values)
                encode_gathered_row(values, 0, k, kp, scale_of, zero_of, source, codes, out, row, top)

    return main
