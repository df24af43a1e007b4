"""Grouped-scale integer GEMM without a byte dot product: bytes widen to 16 bits, pairs of products add to 32.

``vpmaddubsw`` would take the bytes as they are, but saturates at 16 bits, where two products of 255 * 127 do not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.vector import fma
from tvm_ahcq.target import HostTarget

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


@T.inline
def _multiply(acc, rest, a, w, first_row, rows, first_column, n, low, high, dot):
    """Integer products of one group of channels, from `low` to `high`: lanes of sums, and what fills no step."""
    for i in T.unroll(_TILE_ROWS * _TILE_COLUMNS):
        acc[i] = T.broadcast(0, dot.lanes)
        rest[i] = 0
    for k in range((high - low) // dot.step):
        for r in T.unroll(_TILE_ROWS):
            for c in T.unroll(_TILE_COLUMNS):
                acc[r * _TILE_COLUMNS + c] = dot.accumulate(
                    acc[r * _TILE_COLUMNS + c],
                    a[T.min(first_row + r, rows - 1), T.ramp(low + k * dot.step, 1, dot.step)],
                    w[T.min(first_column + c, n - 1), T.ramp(low + k * dot.step, 1, dot.step)],
                )
    for k in range((high - low) % dot.step):
        for r in T.unroll(_TILE_ROWS):
            for c in T.unroll(_TILE_COLUMNS):
                rest[r * _TILE_COLUMNS + c] = rest[r * _TILE_COLUMNS + c] + T.cast(
                    a[T.min(first_row + r, rows - 1), high - 1 - k], "int32"
                ) * T.cast(w[T.min(first_column + c, n - 1), high - 1 - k], "int32")


@T.inline
def _add_group(y, acc, rest, multiplier, correction, g, first_column, n, dot):
    """``y = fma(float32(products + correction), multiplier, y)``."""
    for r in T.unroll(_TILE_ROWS):
        for c in T.unroll(_TILE_COLUMNS):
            y[r * _TILE_COLUMNS + c] = fma(
                T.cast(
                    dot.total(acc[r * _TILE_COLUMNS + c])
                    + rest[r * _TILE_COLUMNS + c]
                    + correction[g, T.min(first_column + c, n - 1)],
                    "float32",
                ),
                multiplier[g, T.min(first_column + c, n - 1)],
                y[r * _TILE_COLUMNS + c],
                1,
            )


def generic_body(rows: int | Expr, n: int, groups: int, target: HostTarget) -> Callable[..., None]:
    """Inline function with the arguments of the kernel, whose weights are in layout "rows"."""
    dot, tile_size = _dot(target), _TILE_ROWS * _TILE_COLUMNS
    column_blocks = -(-n // _BLOCK)
    row_blocks = (rows + _BLOCK - 1) // _BLOCK

    @T.inline
    def tile(a, w, bounds, multiplier, correction, bias, out, first_row, first_column):
        """A register tile; rows and columns past the end repeat the last one, and store the same values again."""
        acc = T.alloc_buffer((tile_size,), f"int32x{dot.lanes}", scope="local")
        rest = T.alloc_buffer((tile_size,), "int32", scope="local")
        y = T.alloc_buffer((tile_size,), "float32", scope="local")
        for r, c in T.grid(_TILE_ROWS, _TILE_COLUMNS):
            y[r * _TILE_COLUMNS + c] = bias[T.min(first_column + c, n - 1)]
        for g in range(groups):
            low = bounds[g]
            high = bounds[g + 1]
            _multiply(acc, rest, a, w, first_row, rows, first_column, n, low, high, dot)
            _add_group(y, acc, rest, multiplier, correction, g, first_column, n, dot)
        for r, c in T.grid(_TILE_ROWS, _TILE_COLUMNS):
            out[T.min(first_row + r, rows - 1), T.min(first_column + c, n - 1)] = y[r * _TILE_COLUMNS + c]

    @T.inline
    def body(a, w, bounds, multiplier, correction, bias, out):
        for task in T.parallel(row_blocks * column_blocks):
            row = task // column_blocks * _BLOCK
            column = task % column_blocks * _BLOCK
            for j in range((T.min(n - column, _BLOCK) + _TILE_COLUMNS - 1) // _TILE_COLUMNS):
                for i in range((T.min(rows - row, _BLOCK) + _TILE_ROWS - 1) // _TILE_ROWS):
                    first_row = row + i * _TILE_ROWS
                    first_column = column + j * _TILE_COLUMNS
                    tile(a, w, bounds, multiplier, correction, bias, out, first_row, first_column)

    return body
