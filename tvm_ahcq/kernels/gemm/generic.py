"""Grouped-scale integer GEMM without a byte dot product: bytes widen to 16 bits, pairs of products add to 32.

``vpmaddubsw`` would take the bytes as they are, but saturates at 16 bits, where two products of 255 * 127 do not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.vector import fma
from tvm_ahcq.target import HostTarget

from .context import GemmContext, TaskGrid
from .tiling import LinearSchedule
from .workload import LinearWorkload

_TILE_ROWS, _TILE_COLUMNS = 2, 4
_BLOCK = 64
"""Rows and columns of one parallel task, whose operands then fit in the L2 cache."""


@dataclass(frozen=True)
class _Dot:
    """A step of an integer dot product: `step` pairs of bytes add into `lanes` int32 sums."""

    step: int
    lanes: int
    intrinsic: str = ""

    def accumulate(self, acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
        """`acc` plus the products of `step` uint8 and `step` int8 values."""
        wide = f"{'int16' if self.intrinsic else 'int32'}x{self.step}"
        unsigned, signed = T.cast(unsigned, wide), T.cast(signed, wide)
        if self.intrinsic:
            return acc + T.call_llvm_pure_intrin(f"int32x{self.lanes}", self.intrinsic, unsigned, signed)
        return acc + unsigned * signed

    def total(self, acc: Expr) -> Expr:
        """Sum of the lanes."""
        return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.add.v{self.lanes}i32", acc)


def _dot(target: HostTarget) -> _Dot:
    """The widest step that every machine of `target` can do."""
    if "avx2" in target.cpu_features:
        return _Dot(16, 8, "llvm.x86.avx2.pmadd.wd")
    if target.triple.startswith("x86_64"):
        return _Dot(8, 4, "llvm.x86.sse2.pmadd.wd")
    return _Dot(8, 8)


@dataclass(frozen=True)
class _Tile:
    """Register tile of outputs: lanes of sums, channels that fill no step, and outputs so far.

    Rows and columns past the end repeat the last one.
    """

    gemm: GemmContext
    first_row: Expr
    first_column: Expr
    acc: Buffer
    rest: Buffer
    y: Buffer

    def row(self, r: Expr) -> Expr:
        """Row `r` of the tile."""
        return self.gemm.row(self.first_row, r)

    def column(self, c: Expr) -> Expr:
        """Column `c` of the tile."""
        return T.min(self.first_column + c, self.gemm.outputs - 1)


@T.inline
def _multiply(gemm, tile, low, high, dot):
    """Integer products of one group of channels, from `low` to `high`."""
    for i in T.unroll(_TILE_ROWS * _TILE_COLUMNS):
        tile.acc[i] = T.broadcast(0, dot.lanes)
        tile.rest[i] = 0
    for k in range((high - low) // dot.step):
        for r in T.unroll(_TILE_ROWS):
            for c in T.unroll(_TILE_COLUMNS):
                tile.acc[r * _TILE_COLUMNS + c] = dot.accumulate(
                    tile.acc[r * _TILE_COLUMNS + c],
                    gemm.a[tile.row(r), T.ramp(low + k * dot.step, 1, dot.step)],
                    gemm.w[tile.column(c), T.ramp(low + k * dot.step, 1, dot.step)],
                )
    for k in range((high - low) % dot.step):
        for r in T.unroll(_TILE_ROWS):
            for c in T.unroll(_TILE_COLUMNS):
                tile.rest[r * _TILE_COLUMNS + c] = tile.rest[r * _TILE_COLUMNS + c] + T.cast(
                    gemm.a[tile.row(r), high - 1 - k], "int32"
                ) * T.cast(gemm.w[tile.column(c), high - 1 - k], "int32")


@T.inline
def _add_group(gemm, tile, g, dot):
    """``y = fma(float32(products + correction), multiplier, y)``."""
    for r in T.unroll(_TILE_ROWS):
        for c in T.unroll(_TILE_COLUMNS):
            tile.y[r * _TILE_COLUMNS + c] = fma(
                T.cast(
                    dot.total(tile.acc[r * _TILE_COLUMNS + c])
                    + tile.rest[r * _TILE_COLUMNS + c]
                    + gemm.correction[g, tile.column(c)],
                    "float32",
                ),
                gemm.multiplier[g, tile.column(c)],
                tile.y[r * _TILE_COLUMNS + c],
                1,
            )


@T.inline
def _tile(gemm, first_row, first_column, dot):
    acc = T.alloc_buffer((_TILE_ROWS * _TILE_COLUMNS,), f"int32x{dot.lanes}", scope="local")
    rest = T.alloc_buffer((_TILE_ROWS * _TILE_COLUMNS,), "int32", scope="local")
    y = T.alloc_buffer((_TILE_ROWS * _TILE_COLUMNS,), "float32", scope="local")
    tile = T.meta_var(_Tile(gemm, first_row, first_column, acc, rest, y))
    for r, c in T.grid(_TILE_ROWS, _TILE_COLUMNS):
        y[r * _TILE_COLUMNS + c] = gemm.bias[tile.column(c)]
    for g in range(gemm.workload.groups):
        low = gemm.bounds[g]
        high = gemm.bounds[g + 1]
        _multiply(gemm, tile, low, high, dot)
        _add_group(gemm, tile, g, dot)
    for r, c in T.grid(_TILE_ROWS, _TILE_COLUMNS):
        gemm.out[tile.row(r), tile.column(c)] = y[r * _TILE_COLUMNS + c]


@T.inline
def _tasks(grid, dot, gemm):
    for task in T.parallel(grid.count):
        row = grid.start(task)
        column = grid.panel(task) * _BLOCK
        for j in range((T.min(gemm.outputs - column, _BLOCK) + _TILE_COLUMNS - 1) // _TILE_COLUMNS):
            for i in range((T.min(gemm.rows - row, _BLOCK) + _TILE_ROWS - 1) // _TILE_ROWS):
                first_row = row + i * _TILE_ROWS
                first_column = column + j * _TILE_COLUMNS
                _tile(gemm, first_row, first_column, dot)


def generic_body(rows: int | Expr, workload: LinearWorkload, target: HostTarget) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.GemmContext` whose weights are in layout "rows"."""
    grid = TaskGrid(rows, -(-workload.outputs // _BLOCK), LinearSchedule(block_rows=_BLOCK))
    return partial(_tasks, grid, _dot(target))
