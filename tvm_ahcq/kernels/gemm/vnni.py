"""Grouped-scale integer GEMM with AVX512-VNNI: ``vpdpbusd`` multiplies 64 pairs of bytes an instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.vector import LANES, fma, four_codes, vpdpbusd

from .context import TaskGrid
from .epilogue import SCRATCH
from .tiling import DEFAULT, LinearSchedule

_TILE_ROWS = {1: 12, 2: 6, 3: 4, 4: 3, 5: 3, 6: 3}
"""Rows of a register tile by its width in vectors: the integer sums of a group and the outputs so far share the 32
registers. Tiles twice as large, whose outputs wait in memory, lose a quarter of the speed on short groups."""


@dataclass(frozen=True)
class _Tile:
    """Register tile of `rows` by `vectors` vectors of outputs, of which the last has `tail` outputs (0 if all 16)."""

    rows: int
    vectors: int
    tail: int

    @property
    def full(self) -> int:
        """Vectors with 16 outputs."""
        return self.vectors - (self.tail > 0)

    @property
    def size(self) -> int:
        """Vectors in the tile."""
        return self.rows * self.vectors


@dataclass(frozen=True)
class _Panels:
    """Panels of columns: `whole` ones of the width of `tile`, then one of the width of `last` if `count` is greater."""

    tile: _Tile
    last: _Tile
    whole: int
    count: int

    @classmethod
    def of(cls, outputs: int, schedule: LinearSchedule) -> _Panels:
        """Cut `outputs` columns into panels."""
        blocks = -(-outputs // LANES)
        width = min(schedule.vectors or _panel_width(blocks), blocks)
        count = -(-blocks // width)
        last_width = blocks - (count - 1) * width
        tile = _Tile(schedule.tile_rows or _TILE_ROWS[width], width, 0)
        last = _Tile(schedule.tile_rows or _TILE_ROWS[last_width], last_width, outputs % LANES)
        return cls(tile, last, count if last == tile else count - 1, count)


def _panel_width(blocks: int) -> int:
    """Width, in vectors, of the panels that `blocks` vectors of output columns are cut into."""
    return next((width for width in (4, 3, 5, 2) if blocks % width == 0), min(blocks, 4))


@T.inline
def _begin(gemm, y, block, tile):
    """The sums start with the bias."""
    for r in T.unroll(tile.rows):
        for v in T.unroll(tile.full):
            y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)] = gemm.bias[T.ramp((block + v) * LANES, 1, LANES)]
        for lane in range(tile.tail):
            y[(r * tile.vectors + tile.full) * LANES + lane] = gemm.bias[(block + tile.full) * LANES + lane]


@T.inline
def _multiply(gemm, acc, first_row, block, low, high, tile):
    """Integer products of one group, which spans quadruples of channels from `low` to `high`."""
    for i in T.unroll(tile.size):
        acc[i] = T.broadcast(0, LANES)
    for k in range(high - low):
        for r in T.unroll(tile.rows):
            for v in T.unroll(tile.vectors):
                acc[r * tile.vectors + v] = vpdpbusd(
                    acc[r * tile.vectors + v],
                    four_codes(gemm.a[gemm.row(first_row, r), T.ramp((low + k) * 4, 1, 4)]),
                    gemm.w[block + v, low + k, 0, T.ramp(0, 1, 64)],
                )


@T.inline
def _add_group(gemm, y, acc, g, block, tile):
    """``y = fma(float32(acc + correction), multiplier, y)``."""
    for r in T.unroll(tile.rows):
        for v in T.unroll(tile.full):
            y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)] = fma(
                T.cast(
                    acc[r * tile.vectors + v] + gemm.correction[g, T.ramp((block + v) * LANES, 1, LANES)], "float32x16"
                ),
                gemm.multiplier[g, T.ramp((block + v) * LANES, 1, LANES)],
                y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)],
            )
        if tile.tail > 0:
            lanes = T.alloc_buffer((LANES,), "int32", scope="local")
            lanes[T.ramp(0, 1, LANES)] = acc[r * tile.vectors + tile.full]
            for lane in range(tile.tail):
                y[(r * tile.vectors + tile.full) * LANES + lane] = fma(
                    T.cast(lanes[lane] + gemm.correction[g, (block + tile.full) * LANES + lane], "float32"),
                    gemm.multiplier[g, (block + tile.full) * LANES + lane],
                    y[(r * tile.vectors + tile.full) * LANES + lane],
                    1,
                )


@T.inline
def _finish(gemm, scratch, y, first_row, block, tile):
    """Rows past the end have repeated the last one, and store the same values again."""
    for r in T.unroll(tile.rows):
        for v in T.unroll(tile.full):
            gemm.epilogue.store(
                gemm.out,
                *scratch,
                y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)],
                gemm.row(first_row, r),
                block + v,
            )
        if tile.tail > 0:
            for lane in range(tile.tail):
                gemm.out[gemm.row(first_row, r), (block + tile.full) * LANES + lane] = y[
                    (r * tile.vectors + tile.full) * LANES + lane
                ]


@T.inline
def _panel(gemm, scratch, start, end, block, tile):
    """One panel of columns, `tile` wide, for the rows from `start` to `end`."""
    for i in range((end - start + tile.rows - 1) // tile.rows):
        acc = T.alloc_buffer((tile.size,), "int32x16", scope="local")
        y = T.alloc_buffer((tile.size * LANES,), "float32", scope="local")
        _begin(gemm, y, block, tile)
        for g in range(gemm.workload.groups):
            _multiply(gemm, acc, start + i * tile.rows, block, gemm.bounds[g] // 4, gemm.bounds[g + 1] // 4, tile)
            _add_group(gemm, y, acc, g, block, tile)
        _finish(gemm, scratch, y, start + i * tile.rows, block, tile)


@T.inline
def _tasks(grid, panels, gemm):
    for task in T.parallel(grid.count):
        start = grid.start(task)
        panel = grid.panel(task)
        end = T.min(gemm.rows, start + grid.block_rows)
        floats = T.alloc_buffer((SCRATCH,), "float32", scope="local")
        ints = T.alloc_buffer((SCRATCH,), "int32", scope="local")
        gemm.epilogue.prepare(gemm.out, floats, ints)
        if panels.whole > 0:
            if panel < panels.whole:
                _panel(gemm, (floats, ints), start, end, panel * panels.tile.vectors, panels.tile)
        if panels.whole < panels.count:
            if panel >= panels.whole:
                _panel(gemm, (floats, ints), start, end, panels.whole * panels.tile.vectors, panels.last)


def vnni_body(rows: int | Expr, outputs: int, schedule: LinearSchedule = DEFAULT) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.GemmContext` whose weights are in layout "vnni16"."""
    panels = _Panels.of(outputs, schedule)
    return partial(_tasks, TaskGrid(rows, panels.count, schedule), panels)
