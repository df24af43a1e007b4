"""float32 matrix product with a transposed weight, as linear layers store it."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from ..target import HostTarget
from .vector import LANES, extent, fma

_DEPTH = 512
"""Steps of the sum between two visits of an output tile; a panel of weights so deep stays in the L2 cache."""

_BLOCK_ROWS = 96

_FEW_ROWS = 16
"""Below so many rows it does not pay to pack the weight."""


@dataclass(frozen=True)
class _Tile:
    """Register tile of `rows` by ``vectors * 16`` outputs, and whether multiply-adds are fused."""

    rows: int
    vectors: int
    fused: bool

    @property
    def columns(self) -> int:
        return self.vectors * LANES

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """``a * b + c`` the way that is fast on the target."""
        return fma(a, b, c) if self.fused else a * b + c


def _tile(target: HostTarget) -> _Tile:
    """The largest tile whose sums stay in registers."""
    if "avx512f" in target.cpu_features:
        return _Tile(6, 4, True)
    if "avx2" in target.cpu_features or target.triple.startswith("aarch64"):
        return _Tile(6, 1, True)
    return _Tile(2, 1, False)


@T.inline
def _few_rows(x, w, bias, out, rows, n, k, tile):
    """Dot products of rows as they are stored."""
    for task in T.parallel((n + LANES - 1) // LANES):
        acc = T.alloc_buffer((LANES,), "float32", scope="local")
        for row in range(rows):
            for j in range(T.min(n - task * LANES, LANES)):
                acc[T.ramp(0, 1, LANES)] = T.broadcast(T.float32(0), LANES)
                for i in range(k // LANES):
                    acc[T.ramp(0, 1, LANES)] = tile.multiply_add(
                        x[row, T.ramp(i * LANES, 1, LANES)],
                        w[task * LANES + j, T.ramp(i * LANES, 1, LANES)],
                        acc[T.ramp(0, 1, LANES)],
                    )
                for i in range(k % LANES):
                    acc[i] = acc[i] + x[row, k - 1 - i] * w[task * LANES + j, k - 1 - i]
                for i in range(LANES - 1):
                    acc[0] = acc[0] + acc[i + 1]
                out[row, task * LANES + j] = acc[0] + bias[task * LANES + j]


@T.inline
def _pack(w, packed, n, k, columns):
    """Panels of `columns` outputs, step by step of the sum; outputs past the end repeat the last one."""
    for panel in T.parallel((n + columns - 1) // columns):
        for start in range((k + LANES - 1) // LANES):
            for j in range(columns):
                for i in range(T.min(k - start * LANES, LANES)):
                    packed[panel * k + start * LANES + i, j] = w[T.min(panel * columns + j, n - 1), start * LANES + i]


@T.inline
def _store_tile(x, packed, bias, out, first_row, rows, panel, depth, n, k, tile, width):
    """Add up to `_DEPTH` steps to a tile of which `width` columns exist; rows past the end repeat the last one."""
    acc = T.alloc_buffer((tile.rows * tile.vectors,), "float32x16", scope="local")
    staged = T.alloc_buffer((tile.rows, tile.columns), "float32", scope="local")
    for r in T.unroll(tile.rows):
        for v in T.unroll(width // LANES):
            acc[r * tile.vectors + v] = T.if_then_else(
                depth == 0,
                bias[T.ramp(panel * tile.columns + v * LANES, 1, LANES)],
                out[T.min(first_row + r, rows - 1), T.ramp(panel * tile.columns + v * LANES, 1, LANES)],
            )
        if width < tile.columns:
            for j in range(width % LANES):
                staged[r, width // LANES * LANES + j] = T.if_then_else(
                    depth == 0,
                    bias[panel * tile.columns + width // LANES * LANES + j],
                    out[T.min(first_row + r, rows - 1), panel * tile.columns + width // LANES * LANES + j],
                )
            for v in T.unroll(tile.vectors - width // LANES):
                acc[r * tile.vectors + width // LANES + v] = staged[r, T.ramp((width // LANES + v) * LANES, 1, LANES)]
    for i in range(T.min(k - depth * _DEPTH, _DEPTH)):
        for r in T.unroll(tile.rows):
            for v in T.unroll(tile.vectors):
                acc[r * tile.vectors + v] = tile.multiply_add(
                    T.broadcast(x[T.min(first_row + r, rows - 1), depth * _DEPTH + i], LANES),
                    packed[panel * k + depth * _DEPTH + i, T.ramp(v * LANES, 1, LANES)],
                    acc[r * tile.vectors + v],
                )
    for r in T.unroll(tile.rows):
        for v in T.unroll(width // LANES):
            out[T.min(first_row + r, rows - 1), T.ramp(panel * tile.columns + v * LANES, 1, LANES)] = acc[
                r * tile.vectors + v
            ]
        if width % LANES > 0:
            staged[r, T.ramp(width // LANES * LANES, 1, LANES)] = acc[r * tile.vectors + width // LANES]
            for j in range(width % LANES):
                out[T.min(first_row + r, rows - 1), panel * tile.columns + width // LANES * LANES + j] = staged[
                    r, width // LANES * LANES + j
                ]


def matmul(m: int | Expr, n: int, k: int, target: HostTarget) -> PrimFunc:
    """Kernel of ``x @ w.T + bias`` in float32.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``w`` float32 ``(N, K)``; ``bias`` float32 ``(N,)``; and the
    output, float32 ``(M, N)``. The order of the additions depends on the target.

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    n, k : int
        Outputs and inputs.
    target : HostTarget
        Processor that the kernel is for.
    """
    rows, tile = extent(m, "m"), _tile(target)
    panels, whole = -(-n // tile.columns), n // tile.columns
    row_blocks = (rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS
    depths = -(-k // _DEPTH)

    @T.prim_func(s_tir=True)
    def main(x_handle: T.handle, w_handle: T.handle, bias_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_matmul", "tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        w = T.match_buffer(w_handle, (n, k), "float32", align=4)
        bias = T.match_buffer(bias_handle, (n,), "float32", align=4)
        out = T.match_buffer(out_handle, (rows, n), "float32", align=4)
        if rows < _FEW_ROWS:
            _few_rows(x, w, bias, out, rows, n, k, tile)
        else:
            packed = T.alloc_buffer((panels * k, tile.columns), "float32")
            _pack(w, packed, n, k, tile.columns)
            for task in T.parallel(row_blocks * panels):
                start = task // panels * _BLOCK_ROWS
                panel = task % panels
                for depth in range(depths):
                    for i in range((T.min(rows - start, _BLOCK_ROWS) + tile.rows - 1) // tile.rows):
                        if whole > 0:
                            if panel < whole:
                                _store_tile(
                                    x, packed, bias, out, start + i * tile.rows, rows, panel, depth, n, k, tile,
                                    tile.columns,
                                )  # fmt: skip
                        if whole < panels:
                            if panel >= whole:
                                _store_tile(
                                    x, packed, bias, out, start + i * tile.rows, rows, panel, depth, n, k, tile,
                                    n - whole * tile.columns,
                                )  # fmt: skip

    return main
