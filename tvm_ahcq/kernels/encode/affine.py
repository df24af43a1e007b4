"""float32 activations to the integer codes of uniform and channel-grouped (CAG) quantizers."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import FEW, LANES, extent, rint

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


@T.inline
def _encode_row(source, source_row, out, row, bounds, scale, zero_point, groups, top):
    """Encode the ordered channels of one row, group by group."""
    for g in range(groups):
        low = bounds[g]
        size = bounds[g + 1] - low
        zero = T.cast(zero_point[g], "float32")
        for j in range(size // LANES):
            out[row, T.ramp(low + j * LANES, 1, LANES)] = uniform_codes(
                source[source_row, T.ramp(low + j * LANES, 1, LANES)], scale[g], zero, top, LANES
            )
        for j in range(size % LANES):
            out[row, low + size // LANES * LANES + j] = uniform_codes(
                source[source_row, low + size // LANES * LANES + j], scale[g], zero, top, 1
            )


@T.inline
def _encode_all(x, out, count, scale, zero, top, loop):
    """Encode `count` values with one scale and zero point."""
    for task in loop((count + _BLOCK - 1) // _BLOCK):
        for j in range(T.min(count - task * _BLOCK, _BLOCK) // LANES):
            out[T.ramp(task * _BLOCK + j * LANES, 1, LANES)] = uniform_codes(
                x[T.ramp(task * _BLOCK + j * LANES, 1, LANES)], scale[0], T.cast(zero[0], "float32"), top, LANES
            )
        for j in range(T.min(count - task * _BLOCK, _BLOCK) % LANES):
            out[task * _BLOCK + T.min(count - task * _BLOCK, _BLOCK) - 1 - j] = uniform_codes(
                x[task * _BLOCK + T.min(count - task * _BLOCK, _BLOCK) - 1 - j],
                scale[0],
                T.cast(zero[0], "float32"),
                top,
                1,
            )


@T.inline
def prepare_channels(index, bounds, scale, zero_point, groups, k, kp, scale_of, zero_of, source):
    """Scale and zero point of each input channel, and where each output channel comes from (`k`: from nowhere)."""
    for c in range(k):
        scale_of[c] = T.float32(1)
        zero_of[c] = T.float32(0)
    for g in range(groups):
        for j in range(bounds[g + 1] - bounds[g]):
            if index[bounds[g] + j] >= 0:
                scale_of[index[bounds[g] + j]] = scale[g]
                zero_of[index[bounds[g] + j]] = T.cast(zero_point[g], "float32")
    for j in range(kp):
        source[j] = T.Select(index[j] < 0, k, index[j])


@T.inline
def encode_gathered_row(x, row, k, kp, scale_of, zero_of, source, codes, out, out_row, top):
    """Encode a row in its own order, then put the codes, and zeros that pad, in the order of the groups."""
    for j in range(k // LANES):
        codes[T.ramp(j * LANES, 1, LANES)] = uniform_codes(
            x[row, T.ramp(j * LANES, 1, LANES)],
            scale_of[T.ramp(j * LANES, 1, LANES)],
            zero_of[T.ramp(j * LANES, 1, LANES)],
            top,
            LANES,
        )
    for j in range(k % LANES):
        codes[k // LANES * LANES + j] = uniform_codes(
            x[row, k // LANES * LANES + j], scale_of[k // LANES * LANES + j], zero_of[k // LANES * LANES + j], top, 1
        )
    codes[k] = T.uint8(0)
    for j in range(kp):
        out[out_row, j] = codes[source[j]]


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
    rows, top = extent(m, "m"), 2**bits - 1
    tasks = (rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS

    @T.inline
    def blocks(x, index, bounds, scale, zero, out, loop):
        if identity and groups == 1:
            flat_x = T.decl_buffer((rows * k,), "float32", data=x.data, align=4)
            flat_out = T.decl_buffer((rows * k,), "uint8", data=out.data, align=1)
            _encode_all(flat_x, flat_out, rows * k, scale, zero, top, loop)
        elif identity:
            for task in loop(tasks):
                for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
                    row = task * _BLOCK_ROWS + i
                    _encode_row(x, row, out, row, bounds, scale, zero, groups, top)
        else:
            for task in loop(tasks):
                scale_of = T.alloc_buffer((k,), "float32")
                zero_of = T.alloc_buffer((k,), "float32")
                source = T.alloc_buffer((kp,), "int32")
                codes = T.alloc_buffer((k + 1,), "uint8")
                prepare_channels(index, bounds, scale, zero, groups, k, kp, scale_of, zero_of, source)
                for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
                    row = task * _BLOCK_ROWS + i
                    encode_gathered_row(x, row, k, kp, scale_of, zero_of, source, codes, out, row, top)

    @T.inline
    def encode(x_handle, index, bounds_handle, scale_handle, zero_handle, out_handle):
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        bounds = T.match_buffer(bounds_handle, (groups + 1,), "int32", align=4)
        scale = T.match_buffer(scale_handle, (groups,), "float32", align=4)
        zero = T.match_buffer(zero_handle, (groups,), "int32", align=4)
        out = T.match_buffer(out_handle, (rows, kp), "uint8", align=1)
        if rows * kp <= FEW:
            blocks(x, index, bounds, scale, zero, out, T.serial)
        else:
            blocks(x, index, bounds, scale, zero, out, T.parallel)

    if identity:

        @T.prim_func(s_tir=True)
        def ordered(x: T.handle, bounds: T.handle, scale: T.handle, zero_point: T.handle, out: T.handle):
            T.func_attr({"global_symbol": "ahcq_encode_affine", "tirx.noalias": True, "tirx.is_scheduled": True})
            encode(x, None, bounds, scale, zero_point, out)

        return ordered

    @T.prim_func(s_tir=True)
    def gathered(
        x: T.handle, index_handle: T.handle, bounds: T.handle, scale: T.handle, zero_point: T.handle, out: T.handle
    ):
        T.func_attr({"global_symbol": "ahcq_encode_affine", "tirx.noalias": True, "tirx.is_scheduled": True})
        index = T.match_buffer(index_handle, (kp,), "int32", align=4)
        encode(x, index, bounds, scale, zero_point, out)

    return gathered
