"""Layer normalisation straight to the codes of a channel-grouped (CAG) quantizer, in image or in window order."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import extent
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.kernels.float32.layer_norm import RowNorm, normalise_row

from .affine import AffineEncoder, ChannelBuffers, encode_gathered_row, prepare_channels

_BLOCK_ROWS = 32


@T.inline
def _normalise(norm, windows, x, row, values):
    """Normalise the token of output row `row` to ``values[0]``; tokens that fill windows up are 0."""
    if windows is None:
        normalise_row(norm, x, row, values, 0)
    else:
        if windows.inside(row):
            normalise_row(norm, x, windows.image_row(row), values, 0)
        else:
            for j in range(norm.k):
                values[0, j] = T.float32(0)


@T.inline
def _tasks(norm, encoder, windows, x, out, rows):
    """Normalise and encode blocks of rows."""
    for task in T.parallel((rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
        scale = T.alloc_buffer((encoder.channels,), "float32")
        zero = T.alloc_buffer((encoder.channels,), "float32")
        source = T.alloc_buffer((encoder.padded,), "int32")
        codes = T.alloc_buffer((encoder.channels + 1,), "uint8")
        values = T.alloc_buffer((1, encoder.channels), "float32")
        channels = T.meta_var(ChannelBuffers(scale, zero, source, codes))
        prepare_channels(encoder, channels)
        for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
            row = task * _BLOCK_ROWS + i
            _normalise(norm, windows, x, row, values)
            encode_gathered_row(encoder, channels, values, 0, out, row)


def norm_encode(
    m: int | Expr, k: int, kp: int, groups: int, bits: int, eps: float, windows: Windows | None = None
) -> PrimFunc:
    """Kernel of ``encode_affine(layer_norm(...))``, bit for bit.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``gamma`` and ``beta`` float32 ``(K,)``; ``index`` int32
    ``(Kp,)``, ``bounds`` int32 ``(G + 1,)``, ``scale`` float32 ``(G,)`` and ``zero_point`` int32 ``(G,)`` of the
    quantizer; and the output, uint8 ``(R, Kp)``: ``R`` is `m`, or the tokens of all windows of `m` tokens, of which
    those that fill windows up have the code of 0.

    Parameters
    ----------
    m : int or Expr
        Tokens; anything but an int makes a kernel for any number of them. An int with `windows`.
    k, kp, groups, bits
        As in :func:`.affine.encode_affine`.
    eps : float
        As in :func:`tvm_ahcq.kernels.float32.layer_norm.layer_norm`.
    windows : Windows, optional
        Order of the output's rows.
    """
    tokens = extent(m, "m")
    rows = tokens
    if windows is not None:
        rows = m // (windows.height * windows.width) * windows.per_image * windows.tokens

    @T.inline
    def run(x_handle, affine, quantizer, out_handle):
        x = T.match_buffer(x_handle, (tokens, k), "float32", align=4)
        gamma = T.match_buffer(affine[0], (k,), "float32", align=4)
        beta = T.match_buffer(affine[1], (k,), "float32", align=4)
        index = T.match_buffer(quantizer[0], (kp,), "int32", align=4)
        bounds = T.match_buffer(quantizer[1], (groups + 1,), "int32", align=4)
        scale = T.match_buffer(quantizer[2], (groups,), "float32", align=4)
        zero = T.match_buffer(quantizer[3], (groups,), "int32", align=4)
        out = T.match_buffer(out_handle, (rows, kp), "uint8", align=1)
        encoder = T.meta_var(AffineEncoder(k, kp, groups, bits, index, bounds, scale, zero))
        _tasks(RowNorm(k, eps, gamma, beta), encoder, windows, x, out, rows)

    return _kernel(run)


def _kernel(run: Callable[..., None]) -> PrimFunc:
    """Wrap `run` in a kernel."""

    @T.prim_func(s_tir=True)
    def main(
        x: T.handle,
        gamma: T.handle,
        beta: T.handle,
        index: T.handle,
        bounds: T.handle,
        scale: T.handle,
        zero_point: T.handle,
        out: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_norm_encode", "tirx.noalias": True, "tirx.is_scheduled": True})
        run(x, (gamma, beta), (index, bounds, scale, zero_point), out)

    return main
