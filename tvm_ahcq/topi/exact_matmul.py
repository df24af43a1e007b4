"""float32 matrix product with products and sums in float64: the result does not depend on the order of additions."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from .vector import extent

_LANES = 8
"""Lanes of a vector of float64."""

_VECTORS, _ROWS = 2, 6
"""Register tile: with the loads, its sums fill the registers of AVX-512."""

_COLUMNS = _LANES * _VECTORS
_BLOCK_ROWS = 48
"""Rows of one parallel task; a multiple of the tile."""


def exact_matmul(m: int | Expr, n: int, k: int) -> PrimFunc:
    """Kernel of ``x @ w.T + bias``, computed in float64 and rounded to float32 once.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``w`` float32 ``(N, K)``; ``bias`` float32 ``(N,)``; and the
    output, float32 ``(M, N)``. Different orders of the sum differ by 1e-16 relative, which the rounding hides: so all
    targets, and a reference, give the same bits (but for about one element in 1e8).

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    n, k : int
        Outputs and inputs.
    """
    rows, panels = extent(m, "m"), -(-n // _COLUMNS)

    @T.inline
    def tile(x, packed, bias, out, first_row, panel):
        """Rows past the end repeat the last one, and store the same values again."""
        acc = T.alloc_buffer((_ROWS * _VECTORS,), "float64x8", scope="local")
        staged = T.alloc_buffer((_ROWS, _COLUMNS), "float32", scope="local")
        for i in T.unroll(_ROWS * _VECTORS):
            acc[i] = T.broadcast(T.float64(0), _LANES)
        for i in range(k):
            for r in T.unroll(_ROWS):
                for v in T.unroll(_VECTORS):
                    acc[r * _VECTORS + v] = acc[r * _VECTORS + v] + T.broadcast(
                        T.cast(x[T.min(first_row + r, rows - 1), i], "float64"), _LANES
                    ) * T.cast(packed[panel * k + i, T.ramp(v * _LANES, 1, _LANES)], "float64x8")
        for r in T.unroll(_ROWS):
            for v in T.unroll(_VECTORS):
                staged[r, T.ramp(v * _LANES, 1, _LANES)] = T.cast(
                    acc[r * _VECTORS + v] + T.cast(bias[panel, T.ramp(v * _LANES, 1, _LANES)], "float64x8"),
                    "float32x8",
                )
            for j in range(T.min(n - panel * _COLUMNS, _COLUMNS)):
                out[T.min(first_row + r, rows - 1), panel * _COLUMNS + j] = staged[r, j]

    @T.prim_func(s_tir=True)
    def main(x_handle: T.handle, w_handle: T.handle, bias_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_exact_matmul", "tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        w = T.match_buffer(w_handle, (n, k), "float32", align=4)
        bias = T.match_buffer(bias_handle, (n,), "float32", align=4)
        out = T.match_buffer(out_handle, (rows, n), "float32", align=4)
        packed = T.alloc_buffer((panels * k, _COLUMNS), "float32")
        padded = T.alloc_buffer((panels, _COLUMNS), "float32")
        for panel in T.parallel(panels):
            for j in range(_COLUMNS):
                padded[panel, j] = bias[T.min(panel * _COLUMNS + j, n - 1)]
                for i in range(k):
                    packed[panel * k + i, j] = w[T.min(panel * _COLUMNS + j, n - 1), i]
        for block in T.parallel((rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
            for panel in range(panels):
                for i in range((T.min(rows - block * _BLOCK_ROWS, _BLOCK_ROWS) + _ROWS - 1) // _ROWS):
                    tile(x, packed, padded, out, block * _BLOCK_ROWS + i * _ROWS, panel)

    return main
