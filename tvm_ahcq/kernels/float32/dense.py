"""float32 matrix product with a transposed weight, as linear layers store it; sums in float32 or float64."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.errors import AhcqError
from tvm_ahcq.kernels.common.vector import LANES, extent, fma
from tvm_ahcq.target import HostTarget

_DEPTH = 512
"""Steps of a float32 sum between two visits of an output tile; a panel of weights so deep stays in the L2 cache."""

_BLOCK_ROWS = 96

_FEW_ROWS = 16
"""Below so many rows it does not pay to pack the weight."""

_LITTLE_WORK = 1 << 18
"""Multiply-adds up to which waking other threads takes longer than the work."""


@dataclass(frozen=True)
class _Tile:
    """Register tile of `rows` by `vectors` vectors of sums.

    Attributes
    ----------
    rows, vectors : int
        Size of the tile.
    dtype : str
        Type of products and sums, ``"float32"`` or ``"float64"``.
    fused : bool
        Whether float32 multiply-adds are fused.
    depth : int
        Steps of the sum between two visits of an output tile, which is float32: float64 sums must be done in one.
    """

    rows: int
    vectors: int
    dtype: str
    fused: bool
    depth: int

    @property
    def lanes(self) -> int:
        """Length of a vector of sums: 64 bytes."""
        return LANES if self.dtype == "float32" else LANES // 2

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes

    def multiply_add(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """``a * b + c`` the way that is fast on the target; in float64 products are exact, and LLVM may fuse or not."""
        return fma(a, b, c) if self.fused and self.dtype == "float32" else a * b + c

    def wide(self, x: Expr, lanes: int) -> Expr:
        """float32 `x` of so many lanes as `dtype`."""
        return x if self.dtype == "float32" else T.cast(x, "float64" if lanes == 1 else f"float64x{lanes}")

    def narrow(self, x: Expr, lanes: int) -> Expr:
        """`x` of `dtype` and so many lanes as float32."""
        return x if self.dtype == "float32" else T.cast(x, "float32" if lanes == 1 else f"float32x{lanes}")


def _tile(target: HostTarget, dtype: str, k: int) -> _Tile:
    """The largest tile whose sums stay in registers: vectors of either type take the same space."""
    depth = _DEPTH if dtype == "float32" else k
    if "avx512f" in target.cpu_features:
        return _Tile(6, 4, dtype, True, depth)
    if "avx2" in target.cpu_features or target.triple.startswith("aarch64"):
        return _Tile(6, 1, dtype, True, depth)
    return _Tile(2, 1, dtype, False, depth)


@T.inline
def _few_rows(x, w, bias, out, rows, n, k, tile, loop):
    """Dot products of rows as they are stored."""
    for task in loop((n + LANES - 1) // LANES):
        acc = T.alloc_buffer((LANES,), tile.dtype, scope="local")
        for row in range(rows):
            for j in range(T.min(n - task * LANES, LANES)):
                acc[T.ramp(0, 1, LANES)] = T.broadcast(T.cast(0, tile.dtype), LANES)
                for i in range(k // LANES):
                    acc[T.ramp(0, 1, LANES)] = tile.multiply_add(
                        tile.wide(x[row, T.ramp(i * LANES, 1, LANES)], LANES),
                        tile.wide(w[task * LANES + j, T.ramp(i * LANES, 1, LANES)], LANES),
                        acc[T.ramp(0, 1, LANES)],
                    )
                for i in range(k % LANES):
                    acc[i] = acc[i] + tile.wide(x[row, k - 1 - i], 1) * tile.wide(w[task * LANES + j, k - 1 - i], 1)
                for i in range(LANES - 1):
                    acc[0] = acc[0] + acc[i + 1]
                out[row, task * LANES + j] = tile.narrow(acc[0] + tile.wide(bias[task * LANES + j], 1), 1)


@T.inline
def _pack(w, packed, n, k, tile):
    """Panels of `tile.columns` outputs, step by step of the sum; outputs past the end repeat the last one."""
    for panel in T.parallel((n + tile.columns - 1) // tile.columns):
        for start in range((k + LANES - 1) // LANES):
            for j in range(tile.columns):
                for i in range(T.min(k - start * LANES, LANES)):
                    packed[panel * k + start * LANES + i, j] = tile.wide(
                        w[T.min(panel * tile.columns + j, n - 1), start * LANES + i], 1
                    )


@T.inline
def _load_sums(acc, staged, bias, out, row, r, first, depth, tile, width):
    """Row `r` of a tile, whose `width` columns begin at `first`: the bias, or what earlier steps left in `out`."""
    for v in T.unroll(width // tile.lanes):
        acc[r * tile.vectors + v] = tile.wide(
            T.if_then_else(
                depth == 0,
                bias[T.ramp(first + v * tile.lanes, 1, tile.lanes)],
                out[row, T.ramp(first + v * tile.lanes, 1, tile.lanes)],
            ),
            tile.lanes,
        )
    if width < tile.columns:
        for j in range(width % tile.lanes):
            staged[r, width // tile.lanes * tile.lanes + j] = T.if_then_else(
                depth == 0,
                bias[first + width // tile.lanes * tile.lanes + j],
                out[row, first + width // tile.lanes * tile.lanes + j],
            )
        for v in T.unroll(tile.vectors - width // tile.lanes):
            acc[r * tile.vectors + width // tile.lanes + v] = tile.wide(
                staged[r, T.ramp((width // tile.lanes + v) * tile.lanes, 1, tile.lanes)], tile.lanes
            )


@T.inline
def _store_sums(acc, staged, out, row, r, first, tile, width):
    """Row `r` of a tile to the `width` columns of `out` that begin at `first`."""
    for v in T.unroll(width // tile.lanes):
        out[row, T.ramp(first + v * tile.lanes, 1, tile.lanes)] = tile.narrow(acc[r * tile.vectors + v], tile.lanes)
    if width % tile.lanes > 0:
        staged[r, T.ramp(width // tile.lanes * tile.lanes, 1, tile.lanes)] = tile.narrow(
            acc[r * tile.vectors + width // tile.lanes], tile.lanes
        )
        for j in range(width % tile.lanes):
            out[row, first + width // tile.lanes * tile.lanes + j] = staged[r, width // tile.lanes * tile.lanes + j]


@T.inline
def _add_steps(x, packed, bias, out, first_row, rows, panel, depth, k, tile, width):
    """Add up to `tile.depth` steps to a tile of which `width` columns exist; rows past the end repeat the last one."""
    acc = T.alloc_buffer((tile.rows * tile.vectors,), f"{tile.dtype}x{tile.lanes}", scope="local")
    staged = T.alloc_buffer((tile.rows, tile.columns), "float32", scope="local")
    for r in T.unroll(tile.rows):
        _load_sums(acc, staged, bias, out, T.min(first_row + r, rows - 1), r, panel * tile.columns, depth, tile, width)
    for i in range(T.min(k - depth * tile.depth, tile.depth)):
        for r in T.unroll(tile.rows):
            for v in T.unroll(tile.vectors):
                acc[r * tile.vectors + v] = tile.multiply_add(
                    T.broadcast(tile.wide(x[T.min(first_row + r, rows - 1), depth * tile.depth + i], 1), tile.lanes),
                    packed[panel * k + depth * tile.depth + i, T.ramp(v * tile.lanes, 1, tile.lanes)],
                    acc[r * tile.vectors + v],
                )
    for r in T.unroll(tile.rows):
        _store_sums(acc, staged, out, T.min(first_row + r, rows - 1), r, panel * tile.columns, tile, width)


def matmul(m: int | Expr, n: int, k: int, target: HostTarget, accumulate: str = "float32") -> PrimFunc:
    """Kernel of ``x @ w.T + bias``.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``w`` float32 ``(N, K)``; ``bias`` float32 ``(N,)``; and the
    output, float32 ``(M, N)``. The order of the additions depends on the target. With float32 sums it shows in the
    result. With float64 sums (products, which are exact, and bias included), rounded to float32 once at the end, it
    practically does not: quantizers may follow, and executors agree on their codes.

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    n, k : int
        Outputs and inputs.
    target : HostTarget
        Processor that the kernel is for.
    accumulate : str
        Type of products and sums: ``"float32"`` or ``"float64"``.
    """
    if accumulate not in ("float32", "float64"):
        raise AhcqError(f"matmul cannot sum in {accumulate!r}; give accumulate='float32' or 'float64'")
    rows, tile = extent(m, "m"), _tile(target, accumulate, k)
    panels, whole = -(-n // tile.columns), n // tile.columns
    row_blocks = (rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS
    depths = -(-k // tile.depth)

    @T.prim_func(s_tir=True)
    def main(x_handle: T.handle, w_handle: T.handle, bias_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_matmul", "tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        w = T.match_buffer(w_handle, (n, k), "float32", align=4)
        bias = T.match_buffer(bias_handle, (n,), "float32", align=4)
        out = T.match_buffer(out_handle, (rows, n), "float32", align=4)
        if rows < _FEW_ROWS and rows * n * k <= _LITTLE_WORK:
            _few_rows(x, w, bias, out, rows, n, k, tile, T.serial)
        elif rows < _FEW_ROWS:
            _few_rows(x, w, bias, out, rows, n, k, tile, T.parallel)
        else:
            packed = T.alloc_buffer((panels * k, tile.columns), tile.dtype)
            _pack(w, packed, n, k, tile)
            for task in T.parallel(row_blocks * panels):
                start = task // panels * _BLOCK_ROWS
                panel = task % panels
                for depth in range(depths):
                    for i in range((T.min(rows - start, _BLOCK_ROWS) + tile.rows - 1) // tile.rows):
                        if whole > 0:
                            if panel < whole:
                                _add_steps(
                                    x,
                                    packed,
                                    bias,
                                    out,
                                    start + i * tile.rows,
                                    rows,
                                    panel,
                                    depth,
                                    k,
                                    tile,
                                    tile.columns,
                                )
                        if whole < panels:
                            if panel >= whole:
                                _add_steps(
                                    x,
                                    packed,
                                    bias,
                                    out,
                                    start + i * tile.rows,
                                    rows,
                                    panel,
                                    depth,
                                    k,
                                    tile,
                                    n - whole * tile.columns,
                                )

    return main
