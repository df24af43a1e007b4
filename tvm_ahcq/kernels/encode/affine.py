"""float32 activations to the integer codes of uniform and channel-grouped (CAG) quantizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ahcq.kernels.common.parallel import SERIAL_ELEMENTS
from tvm_ahcq.kernels.common.vector import LANES, extent, rint

_BLOCK_ROWS = 32

_BLOCK = 4096
"""Elements of one parallel task where rows do not matter."""


def uniform_codes(x: Expr, scale: Expr, zero_point: Expr, top: int, lanes: int) -> Expr:
    """``clip(rint(x / scale) + zero_point, 0, top)`` as uint8 in `lanes` lanes; `scale`, `zero_point` in all, or one.

    `zero_point` is float32.
    """
    scale, zero_point = (
        T.broadcast(value, lanes) if lanes > 1 and "x" not in str(value.ty.dtype) else value
        for value in (scale, zero_point)
    )
    shifted = rint(x / scale, lanes) + zero_point
    low, high = (T.broadcast(T.float32(bound), lanes) if lanes > 1 else T.float32(bound) for bound in (0, top))
    wide, narrow = (dtype if lanes == 1 else f"{dtype}x{lanes}" for dtype in ("int32", "uint8"))
    return T.cast(T.cast(T.min(T.max(shifted, low), high), wide), narrow)


@dataclass(frozen=True)
class AffineEncoder:
    """A channel-grouped uniform quantizer.

    Attributes
    ----------
    channels, padded : int
        Input channels K, and output channels Kp.
    groups, bits : int
        Channel groups, and bits of a code.
    index, bounds, scale, zero_point : Buffer
        Arguments of :func:`encode_affine`; no index where the channels keep their order.
    """

    channels: int
    padded: int
    groups: int
    bits: int
    index: Buffer | None
    bounds: Buffer
    scale: Buffer
    zero_point: Buffer

    @property
    def top(self) -> int:
        """Largest code."""
        return 2**self.bits - 1


@dataclass(frozen=True)
class ChannelBuffers:
    """Buffers of a task that encodes rows in another order of channels.

    Attributes
    ----------
    scale, zero : Buffer
        Scale and zero point of each input channel, float32 ``(K,)``.
    source : Buffer
        Input channel of each output channel, int32 ``(Kp,)``; ``K`` for padding.
    codes : Buffer
        Codes of a row in the order of the input, and the code of padding, uint8 ``(K + 1,)``.
    """

    scale: Buffer
    zero: Buffer
    source: Buffer
    codes: Buffer


@T.inline
def _encode_row(encoder, x, out, row):
    """Encode the ordered channels of one row, group by group."""
    for g in range(encoder.groups):
        low = encoder.bounds[g]
        size = encoder.bounds[g + 1] - low
        zero = T.cast(encoder.zero_point[g], "float32")
        for j in range(size // LANES):
            out[row, T.ramp(low + j * LANES, 1, LANES)] = uniform_codes(
                x[row, T.ramp(low + j * LANES, 1, LANES)], encoder.scale[g], zero, encoder.top, LANES
            )
        for j in range(size % LANES):
            out[row, low + size // LANES * LANES + j] = uniform_codes(
                x[row, low + size // LANES * LANES + j], encoder.scale[g], zero, encoder.top, 1
            )


@T.inline
def _encode_all(encoder, x, out, count, loop):
    """Encode `count` values with one scale and zero point."""
    for task in loop((count + _BLOCK - 1) // _BLOCK):
        for j in range(T.min(count - task * _BLOCK, _BLOCK) // LANES):
            out[T.ramp(task * _BLOCK + j * LANES, 1, LANES)] = uniform_codes(
                x[T.ramp(task * _BLOCK + j * LANES, 1, LANES)],
                encoder.scale[0],
                T.cast(encoder.zero_point[0], "float32"),
                encoder.top,
                LANES,
            )
        for j in range(T.min(count - task * _BLOCK, _BLOCK) % LANES):
            out[task * _BLOCK + T.min(count - task * _BLOCK, _BLOCK) - 1 - j] = uniform_codes(
                x[task * _BLOCK + T.min(count - task * _BLOCK, _BLOCK) - 1 - j],
                encoder.scale[0],
                T.cast(encoder.zero_point[0], "float32"),
                encoder.top,
                1,
            )


@T.inline
def prepare_channels(encoder, channels):
    """Find scale and zero point of each input channel, and the source of each output channel."""
    index = T.meta_var(encoder.index)
    bounds = T.meta_var(encoder.bounds)
    for c in range(encoder.channels):
        channels.scale[c] = T.float32(1)
        channels.zero[c] = T.float32(0)
    for g in range(encoder.groups):
        for j in range(bounds[g + 1] - bounds[g]):
            if index[bounds[g] + j] >= 0:
                channels.scale[index[bounds[g] + j]] = encoder.scale[g]
                channels.zero[index[bounds[g] + j]] = T.cast(encoder.zero_point[g], "float32")
    for j in range(encoder.padded):
        channels.source[j] = T.Select(index[j] < 0, encoder.channels, index[j])


@T.inline
def encode_gathered_row(encoder, channels, x, row, out, out_row):
    """Encode a row in input order, then store the codes, and zeros that pad, in group order."""
    k = T.meta_var(encoder.channels)
    for j in range(k // LANES):
        channels.codes[T.ramp(j * LANES, 1, LANES)] = uniform_codes(
            x[row, T.ramp(j * LANES, 1, LANES)],
            channels.scale[T.ramp(j * LANES, 1, LANES)],
            channels.zero[T.ramp(j * LANES, 1, LANES)],
            encoder.top,
            LANES,
        )
    for j in range(k % LANES):
        channels.codes[k // LANES * LANES + j] = uniform_codes(
            x[row, k // LANES * LANES + j],
            channels.scale[k // LANES * LANES + j],
            channels.zero[k // LANES * LANES + j],
            encoder.top,
            1,
        )
    channels.codes[k] = T.uint8(0)
    for j in range(encoder.padded):
        out[out_row, j] = channels.codes[channels.source[j]]


@T.inline
def _ordered_rows(encoder, x, out, rows, loop):
    """Encode rows whose channels keep their order."""
    for task in loop((rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
        for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
            row = task * _BLOCK_ROWS + i
            _encode_row(encoder, x, out, row)


@T.inline
def _gathered_rows(encoder, x, out, rows, loop):
    """Encode rows whose channels are reordered."""
    for task in loop((rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
        scale = T.alloc_buffer((encoder.channels,), "float32")
        zero = T.alloc_buffer((encoder.channels,), "float32")
        source = T.alloc_buffer((encoder.padded,), "int32")
        codes = T.alloc_buffer((encoder.channels + 1,), "uint8")
        channels = T.meta_var(ChannelBuffers(scale, zero, source, codes))
        prepare_channels(encoder, channels)
        for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
            row = task * _BLOCK_ROWS + i
            encode_gathered_row(encoder, channels, x, row, out, row)


@T.inline
def _encode_rows(encoder, x, out, rows, loop):
    if encoder.index is not None:
        _gathered_rows(encoder, x, out, rows, loop)
    elif encoder.groups == 1:
        count = T.meta_var(rows * encoder.channels)
        flat_x = T.decl_buffer((count,), "float32", data=x.data, align=4)
        flat_out = T.decl_buffer((count,), "uint8", data=out.data, align=1)
        _encode_all(encoder, flat_x, flat_out, count, loop)
    else:
        _ordered_rows(encoder, x, out, rows, loop)


@T.inline
def _serial_or_parallel(encoder, x, out, rows):
    if rows * encoder.padded <= SERIAL_ELEMENTS:
        _encode_rows(encoder, x, out, rows, T.serial)
    else:
        _encode_rows(encoder, x, out, rows, T.parallel)


def encode_affine(m: int | Expr, k: int, kp: int, groups: int, bits: int, identity: bool) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.core.reference.encode_affine`.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``index`` int32 ``(Kp,)``, which has no channel twice, absent
    if `identity`; ``bounds`` int32 ``(G + 1,)``, the output channels at which groups begin and end; ``scale`` float32
    ``(G,)``; ``zero_point`` int32 ``(G,)``; and the output, uint8 ``(M, Kp)``.

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    k : int
        Channels of the input.
    kp, groups : int
        Channels of the output, and channel groups.
    bits : int
        Bits of a code.
    identity : bool
        The channels keep their order and nothing is padded (``Kp`` = `k`), so that there is no index to follow.
    """
    rows = extent(m, "m")

    @T.inline
    def encode(x_handle, index, quantizer, out_handle):
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        bounds = T.match_buffer(quantizer[0], (groups + 1,), "int32", align=4)
        scale = T.match_buffer(quantizer[1], (groups,), "float32", align=4)
        zero = T.match_buffer(quantizer[2], (groups,), "int32", align=4)
        out = T.match_buffer(out_handle, (rows, kp), "uint8", align=1)
        _serial_or_parallel(AffineEncoder(k, kp, groups, bits, index, bounds, scale, zero), x, out, rows)

    return _ordered_kernel(encode) if identity else _gathered_kernel(encode, kp)


def _ordered_kernel(encode: Callable[..., None]) -> PrimFunc:
    """Wrap `encode` in a kernel without an index."""

    @T.prim_func(s_tir=True)
    def main(x: T.handle, bounds: T.handle, scale: T.handle, zero_point: T.handle, out: T.handle):
        T.func_attr({"global_symbol": "ahcq_encode_affine", "tirx.noalias": True, "tirx.is_scheduled": True})
        encode(x, None, (bounds, scale, zero_point), out)

    return main


def _gathered_kernel(encode: Callable[..., None], kp: int) -> PrimFunc:
    """Wrap `encode` in a kernel with an index of `kp` channels."""

    @T.prim_func(s_tir=True)
    def main(
        x: T.handle, index_handle: T.handle, bounds: T.handle, scale: T.handle, zero_point: T.handle, out: T.handle
    ):
        T.func_attr({"global_symbol": "ahcq_encode_affine", "tirx.noalias": True, "tirx.is_scheduled": True})
        index = T.match_buffer(index_handle, (kp,), "int32", align=4)
        encode(x, index, (bounds, scale, zero_point), out)

    return main
