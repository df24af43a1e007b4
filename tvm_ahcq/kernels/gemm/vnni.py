"""Grouped-scale integer GEMM with AVX512-VNNI: ``vpdpbusd`` multiplies 64 pairs of bytes an instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.vector import LANES, fma, four_codes, vpdpbusd

from .epilogue import PLAIN, SCRATCH, Epilogue
from .tiling import DEFAULT, LinearSchedule

_TILE_ROWS = {1: 12, 2: 6, 3: 4, 4: 3, 5: 3, 6: 3}
"""Rows of a register tile by its width in vectors: the integer sums of a group and the outputs so far share the 32
registers. Tiles twice as large, whose outputs wait in memory, lose a quarter of the speed on short groups."""


def _panel_width(blocks: int) -> int:
    """Width, in vectors, of the panels that `blocks` vectors of output columns are cut into."""
    return next((width for width in (4, 3, 5, 2) if blocks % width == 0), min(blocks, 4))


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


@T.inline
def _begin(y, bias, block, tile):
    """The sums start with the bias."""
    for r in T.unroll(tile.rows):
        for v in T.unroll(tile.full):
            y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)] = bias[T.ramp((block + v) * LANES, 1, LANES)]
        for lane in range(tile.tail):
            y[(r * tile.vectors + tile.full) * LANES + lane] = bias[(block + tile.full) * LANES + lane]


@T.inline
def _multiply(acc, a, w, first_row, rows, block, low, high, tile):
    """Integer products of one group, which spans quadruples of channels from `low` to `high`."""
    for i in T.unroll(tile.size):
        acc[i] = T.broadcast(0, LANES)
    for k in range(high - low):
        for r in T.unroll(tile.rows):
            for v in T.unroll(tile.vectors):
                acc[r * tile.vectors + v] = vpdpbusd(
                    acc[r * tile.vectors + v],
                    four_codes(a[T.min(first_row + r, rows - 1), T.ramp((low + k) * 4, 1, 4)]),
                    w[block + v, low + k, 0, T.ramp(0, 1, 64)],
                )


@T.inline
def _add_group(y, acc, multiplier, correction, g, block, tile):
    """``y = fma(float32(acc + correction), multiplier, y)``."""
    for r in T.unroll(tile.rows):
        for v in T.unroll(tile.full):
            y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)] = fma(
                T.cast(acc[r * tile.vectors + v] + correction[g, T.ramp((block + v) * LANES, 1, LANES)], "float32x16"),
                multiplier[g, T.ramp((block + v) * LANES, 1, LANES)],
                y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)],
            )
        if tile.tail > 0:
            lanes = T.alloc_buffer((LANES,), "int32", scope="local")
            lanes[T.ramp(0, 1, LANES)] = acc[r * tile.vectors + tile.full]
            for lane in range(tile.tail):
                y[(r * tile.vectors + tile.full) * LANES + lane] = fma(
                    T.cast(lanes[lane] + correction[g, (block + tile.full) * LANES + lane], "float32"),
                    multiplier[g, (block + tile.full) * LANES + lane],
                    y[(r * tile.vectors + tile.full) * LANES + lane],
                    1,
                )


@T.inline
def _finish(out, scratch, y, first_row, rows, block, tile, epilogue):
    """Rows past the end have repeated the last one, and store the same values again."""
    for r in T.unroll(tile.rows):
        for v in T.unroll(tile.full):
            epilogue.store(
                out,
                *scratch,
                y[T.ramp((r * tile.vectors + v) * LANES, 1, LANES)],
                T.min(first_row + r, rows - 1),
                block + v,
            )
        if tile.tail > 0:
            for lane in range(tile.tail):
                out[T.min(first_row + r, rows - 1), (block + tile.full) * LANES + lane] = y[
                    (r * tile.vectors + tile.full) * LANES + lane
                ]


@T.inline
def _panel(a, w, multiplier, correction, bias, out, scratch, start, end, rows, block, tile, bounds, groups, epilogue):
    """One panel of columns, `tile` wide, for the rows from `start` to `end`."""
    for i in range((end - start + tile.rows - 1) // tile.rows):
        acc = T.alloc_buffer((tile.size,), "int32x16", scope="local")
        y = T.alloc_buffer((tile.size * LANES,), "float32", scope="local")
        _begin(y, bias, block, tile)
        for g in range(groups):
            _multiply(acc, a, w, start + i * tile.rows, rows, block, bounds[g] // 4, bounds[g + 1] // 4, tile)
            _add_group(y, acc, multiplier, correction, g, block, tile)
        _finish(out, scratch, y, start + i * tile.rows, rows, block, tile, epilogue)


def vnni_body(
    rows: int | Expr, n: int, groups: int, schedule: LinearSchedule = DEFAULT, epilogue: Epilogue = PLAIN
) -> Callable[..., None]:
    """Inline function with the arguments of the kernel, whose weights are in layout "vnni16".

    With another epilogue than `PLAIN`, outputs are a multiple of 16, and the last argument is what it takes.
    """
    blocks, tail = -(-n // LANES), n % LANES
    width = min(schedule.vectors or _panel_width(blocks), blocks)
    panels = -(-blocks // width)
    last_width = blocks - (panels - 1) * width
    tile, last = (
        _Tile(schedule.tile_rows or _TILE_ROWS[vectors], vectors, outputs)
        for vectors, outputs in ((width, 0), (last_width, tail))
    )
    whole = panels if last == tile else panels - 1
    block_rows, rows_first = schedule.block_rows, schedule.rows_first
    row_blocks = (rows + block_rows - 1) // block_rows

    @T.inline
    def body(a, w, bounds, multiplier, correction, bias, out):
        for task in T.parallel(row_blocks * panels):
            start = (task % row_blocks if rows_first else task // panels) * block_rows
            panel = task // row_blocks if rows_first else task % panels
            end = T.min(rows, start + block_rows)
            floats = T.alloc_buffer((SCRATCH,), "float32", scope="local")
            ints = T.alloc_buffer((SCRATCH,), "int32", scope="local")
            epilogue.prepare(out, floats, ints)
            if whole > 0:
                if panel < whole:
                    _panel(
                        a,
                        w,
                        multiplier,
                        correction,
                        bias,
                        out,
                        (floats, ints),
                        start,
                        end,
                        rows,
                        panel * width,
                        tile,
                        bounds,
                        groups,
                        epilogue,
                    )
            if whole < panels:
                if panel >= whole:
                    _panel(
                        a,
                        w,
                        multiplier,
                        correction,
                        bias,
                        out,
                        (floats, ints),
                        start,
                        end,
                        rows,
                        whole * width,
                        last,
                        bounds,
                        groups,
                        epilogue,
                    )

    return body
