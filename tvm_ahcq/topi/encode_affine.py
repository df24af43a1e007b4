"""float32 activations to the integer codes of uniform and channel-grouped (CAG) quantizers."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from .vector import LANES, extent, rint

_BLOCK_ROWS = 32


def _codes(x: Expr, scale: Expr, zero_point: Expr, top: int, lanes: int) -> Expr:
    """``clip(rint(x / scale) + zero_point, 0, top)`` as uint8 in `lanes` lanes."""
    steps = rint(x / T.broadcast(scale, lanes) if lanes > 1 else x / scale, lanes)
    shifted = steps + (T.broadcast(zero_point, lanes) if lanes > 1 else zero_point)
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
            out[row, T.ramp(low + j * LANES, 1, LANES)] = _codes(
                source[source_row, T.ramp(low + j * LANES, 1, LANES)], scale[g], zero, top, LANES
            )
        for j in range(size % LANES):
            out[row, low + size // LANES * LANES + j] = _codes(
                source[source_row, low + size // LANES * LANES + j], scale[g], zero, top, 1
            )


@T.inline
def _encode_gathered_row(x, row, index, chosen, out, kp, bounds, scale, zero_point, groups, top):
    """Encode one row whose channels are ordered, and padded, by `index`."""
    for j in range(kp):
        chosen[0, j] = x[row, T.max(index[j], 0)]
    _encode_row(chosen, 0, out, row, bounds, scale, zero_point, groups, top)
    for j in range(kp):
        out[row, j] = T.if_then_else(index[j] < 0, T.uint8(0), out[row, j])


def encode_affine(m: int | Expr, k: int, kp: int, groups: int, bits: int, identity: bool) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.reference.encode_affine`.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``index`` int32 ``(Kp,)``, absent if `identity`; ``bounds``
    int32 ``(G + 1,)``, the output channels at which groups begin and end;
    ``scale`` float32 ``(G,)``; ``zero_point`` int32 ``(G,)``; and the output, uint8 ``(M, Kp)``.

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
    def encode(x_handle, index, bounds_handle, scale_handle, zero_handle, out_handle):
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        bounds = T.match_buffer(bounds_handle, (groups + 1,), "int32", align=4)
        scale = T.match_buffer(scale_handle, (groups,), "float32", align=4)
        zero = T.match_buffer(zero_handle, (groups,), "int32", align=4)
        out = T.match_buffer(out_handle, (rows, kp), "uint8", align=1)
        for task in T.parallel(tasks):
            if identity:
                for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
                    row = task * _BLOCK_ROWS + i
                    _encode_row(x, row, out, row, bounds, scale, zero, groups, top)
            else:
                chosen = T.alloc_buffer((1, kp), "float32", scope="local")
                for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
                    row = task * _BLOCK_ROWS + i
                    _encode_gathered_row(x, row, index, chosen, out, kp, bounds, scale, zero, groups, top)

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
