"""float32 matrix product with a transposed weight, as linear layers store it; sums in float32 or float64."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ahcq.errors import AhcqError
from tvm_ahcq.kernels.common.parallel import SERIAL_MACS
from tvm_ahcq.kernels.common.vector import LANES, extent, fma
from tvm_ahcq.target import HostTarget

_DEPTH = 512
"""Steps of a float32 sum between two visits of an output tile; a panel of weights so deep stays in the L2 cache."""

_BLOCK_ROWS = 96

_FEW_ROWS = 16
"""Number of rows from which packing the weight pays."""


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


@dataclass(frozen=True)
class _Product:
    """Tile, sizes and buffers of a matrix product while its kernel is built."""

    tile: _Tile
    rows: int | Expr
    n: int
    k: int
    x: Buffer
    w: Buffer
    bias: Buffer
    out: Buffer

    @property
    def panels(self) -> int:
        """Panels of `tile.columns` outputs."""
        return -(-self.n // self.tile.columns)

    def row(self, first_row: Expr, r: Expr) -> Expr:
        """Row `r` of a tile that begins at `first_row`; past the end, the last row again."""
        return T.min(first_row + r, self.rows - 1)


@dataclass(frozen=True)
class _Sums:
    """Sums of a tile, whose columns begin at `first`, after `depth` blocks of steps.

    Attributes
    ----------
    acc : Buffer
        Vectors of sums.
    staged : Buffer
        Rows of a partial panel, element by element, float32.
    first, depth : Expr
        First column, and block of steps.
    width : int
        Columns that exist.
    """

    acc: Buffer
    staged: Buffer
    first: Expr
    depth: Expr
    width: int


@T.inline
def _few_rows(product, loop):
    """Dot products of rows as they are stored."""
    tile = T.meta_var(product.tile)
    x = T.meta_var(product.x)
    w = T.meta_var(product.w)
    k = T.meta_var(product.k)
    for task in loop((product.n + LANES - 1) // LANES):
        acc = T.alloc_buffer((LANES,), tile.dtype, scope="local")
        for row in range(product.rows):
            for j in range(T.min(product.n - task * LANES, LANES)):
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
                product.out[row, task * LANES + j] = tile.narrow(
                    acc[0] + tile.wide(product.bias[task * LANES + j], 1), 1
                )


@T.inline
def _pack(product, packed):
    """Panels of `tile.columns` outputs, step by step of the sum; outputs past the end repeat the last one."""
    tile = T.meta_var(product.tile)
    k = T.meta_var(product.k)
    for panel in T.parallel((product.n + tile.columns - 1) // tile.columns):
        for start in range((k + LANES - 1) // LANES):
            for j in range(tile.columns):
                for i in range(T.min(k - start * LANES, LANES)):
                    packed[panel * k + start * LANES + i, j] = tile.wide(
                        product.w[T.min(panel * tile.columns + j, product.n - 1), start * LANES + i], 1
                    )


@T.inline
def _load_sums(product, sums, row, r):
    """Load row `r` of a tile: the bias, or what earlier steps left in `out`."""
    tile = T.meta_var(product.tile)
    whole = T.meta_var(sums.width // tile.lanes)
    for v in T.unroll(whole):
        sums.acc[r * tile.vectors + v] = tile.wide(
            T.if_then_else(
                sums.depth == 0,
                product.bias[T.ramp(sums.first + v * tile.lanes, 1, tile.lanes)],
                product.out[row, T.ramp(sums.first + v * tile.lanes, 1, tile.lanes)],
            ),
            tile.lanes,
        )
    if sums.width < tile.columns:
        for j in range(sums.width % tile.lanes):
            sums.staged[r, whole * tile.lanes + j] = T.if_then_else(
                sums.depth == 0,
                product.bias[sums.first + whole * tile.lanes + j],
                product.out[row, sums.first + whole * tile.lanes + j],
            )
        for v in T.unroll(tile.vectors - whole):
            sums.acc[r * tile.vectors + whole + v] = tile.wide(
                sums.staged[r, T.ramp((whole + v) * tile.lanes, 1, tile.lanes)], tile.lanes
            )


@T.inline
def _store_sums(product, sums, row, r):
    """Store row `r` of a tile to the columns of `out` that exist."""
    tile = T.meta_var(product.tile)
    whole = T.meta_var(sums.width // tile.lanes)
    for v in T.unroll(whole):
        product.out[row, T.ramp(sums.first + v * tile.lanes, 1, tile.lanes)] = tile.narrow(
            sums.acc[r * tile.vectors + v], tile.lanes
        )
    if sums.width % tile.lanes > 0:
        sums.staged[r, T.ramp(whole * tile.lanes, 1, tile.lanes)] = tile.narrow(
            sums.acc[r * tile.vectors + whole], tile.lanes
        )
        for j in range(sums.width % tile.lanes):
            product.out[row, sums.first + whole * tile.lanes + j] = sums.staged[r, whole * tile.lanes + j]


@T.inline
def _add_steps(product, packed, first_row, panel, depth, width):
    """Add up to `tile.depth` steps to a tile of which `width` columns exist; rows past the end repeat the last one."""
    tile = T.meta_var(product.tile)
    acc = T.alloc_buffer((tile.rows * tile.vectors,), f"{tile.dtype}x{tile.lanes}", scope="local")
    staged = T.alloc_buffer((tile.rows, tile.columns), "float32", scope="local")
    sums = T.meta_var(_Sums(acc, staged, panel * tile.columns, depth, width))
    for r in T.unroll(tile.rows):
        _load_sums(product, sums, product.row(first_row, r), r)
    for i in range(T.min(product.k - depth * tile.depth, tile.depth)):
        for r in T.unroll(tile.rows):
            for v in T.unroll(tile.vectors):
                acc[r * tile.vectors + v] = tile.multiply_add(
                    T.broadcast(tile.wide(product.x[product.row(first_row, r), depth * tile.depth + i], 1), tile.lanes),
                    packed[panel * product.k + depth * tile.depth + i, T.ramp(v * tile.lanes, 1, tile.lanes)],
                    acc[r * tile.vectors + v],
                )
    for r in T.unroll(tile.rows):
        _store_sums(product, sums, product.row(first_row, r), r)


@T.inline
def _panels(product):
    """Tiles of blocks of rows by panels of columns."""
    tile = T.meta_var(product.tile)
    panels = T.meta_var(product.panels)
    whole = T.meta_var(product.n // tile.columns)
    packed = T.alloc_buffer((panels * product.k, tile.columns), tile.dtype)
    _pack(product, packed)
    for task in T.parallel((product.rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS * panels):
        start = task // panels * _BLOCK_ROWS
        panel = task % panels
        for depth in range(-(-product.k // tile.depth)):
            for i in range((T.min(product.rows - start, _BLOCK_ROWS) + tile.rows - 1) // tile.rows):
                if whole > 0:
                    if panel < whole:
                        _add_steps(product, packed, start + i * tile.rows, panel, depth, tile.columns)
                if whole < panels:
                    if panel >= whole:
                        last = T.meta_var(product.n - whole * tile.columns)
                        _add_steps(product, packed, start + i * tile.rows, panel, depth, last)


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

    @T.prim_func(s_tir=True)
    def main(x_handle: T.handle, w_handle: T.handle, bias_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_matmul", "tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        w = T.match_buffer(w_handle, (n, k), "float32", align=4)
        bias = T.match_buffer(bias_handle, (n,), "float32", align=4)
        out = T.match_buffer(out_handle, (rows, n), "float32", align=4)
        product = T.meta_var(_Product(tile, rows, n, k, x, w, bias, out))
        if rows < _FEW_ROWS and rows * n * k <= SERIAL_MACS:
            _few_rows(product, T.serial)
        elif rows < _FEW_ROWS:
            _few_rows(product, T.parallel)
        else:
            _panels(product)

    return main
