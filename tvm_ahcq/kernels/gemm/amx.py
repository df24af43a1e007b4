"""Grouped-scale integer GEMM with AMX: ``tdpbusd`` multiplies a 16 x 64 tile of codes with a 64 x 16 tile of weights.

Tiles of weights are loaded from layout "vnni16" as they are. Groups need not be multiples of 64 channels: the last
channels of a group are copied into a separate tile whose other columns are 0, so that their weights do not matter.

Tested with emulated tile instructions, and by inspecting the assembly; not yet run on silicon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer, IntImm

from tvm_ahcq.kernels.common.vector import LANES, fma

from .context import GemmContext, TaskGrid
from .epilogue import SCRATCH
from .tiling import DEFAULT, LinearSchedule
from .vnni import vnni_body
from .workload import LinearWorkload

TILE_ROWS, TILE_BYTES = 16, 64
"""Rows of a tile, and bytes in each."""

ROWS = 2 * TILE_ROWS
"""Rows and columns of a register tile: four tiles of sums, two of codes, two of weights."""


@dataclass(frozen=True)
class Tiles:
    """Tile instructions, as functions that return calls. Tiles are numbers from 0 to 7, addresses pointers."""

    configure: Callable[[Expr], Expr]
    zero: Callable[[int], Expr]
    load: Callable[[int, Expr, int], Expr]
    dot: Callable[[int, int, int], Expr]
    store: Callable[[int, Expr, int], Expr]


def _call(name: str, *args: Expr) -> Expr:
    return T.call_llvm_intrin("void", f"llvm.x86.{name}", *args)


def _number(tile: int) -> Expr:
    return IntImm("int8", tile)


AMX = Tiles(
    lambda address: _call("ldtilecfg", address),
    lambda tile: _call("tilezero", _number(tile)),
    lambda tile, address, stride: _call("tileloadd64", _number(tile), address, IntImm("int64", stride)),
    lambda acc, a, b: _call("tdpbusd", _number(acc), _number(a), _number(b)),
    lambda tile, address, stride: _call("tilestored64", _number(tile), address, IntImm("int64", stride)),
)


@T.inline
def configure(config, tiles):
    """All eight tiles are 16 rows of 64 bytes."""
    for i in range(64):
        config[i] = T.uint8(0)
    config[0] = T.uint8(1)
    for i in range(8):
        config[16 + 2 * i] = T.uint8(TILE_BYTES)
        config[48 + i] = T.uint8(TILE_ROWS)
    T.evaluate(tiles.configure(T.address_of(config[0])))


@T.inline
def zero_sums(tiles):
    """Tiles 0 to 3, the sums, are 0."""
    T.evaluate(tiles.zero(0))
    T.evaluate(tiles.zero(1))
    T.evaluate(tiles.zero(2))
    T.evaluate(tiles.zero(3))


@T.inline
def dots(tiles):
    """Tiles 4 and 5 (codes) times tiles 6 and 7 (weights), added to tiles 0 to 3."""
    T.evaluate(tiles.dot(0, 4, 6))
    T.evaluate(tiles.dot(1, 4, 7))
    T.evaluate(tiles.dot(2, 5, 6))
    T.evaluate(tiles.dot(3, 5, 7))


@dataclass(frozen=True)
class _Sums:
    """Products of a group, codes that fill no tile, and outputs so far of a register tile, in memory."""

    products: Buffer
    rest: Buffer
    y: Buffer


def _next(gemm: GemmContext, block: Expr) -> Expr:
    """The block after `block`, or the last one again."""
    return gemm.block(block + 1)


@T.inline
def _multiply(gemm, sums, row, block, low, high, tiles):
    """Integer products of one group, channels `low` to `high`, to the ``ROWS x ROWS`` products."""
    start = T.max(high - TILE_BYTES, 0)
    zero_sums(tiles)
    for k in range((high - low) // TILE_BYTES):
        T.evaluate(tiles.load(4, T.address_of(gemm.a[row, low + k * TILE_BYTES]), gemm.workload.channels))
        T.evaluate(tiles.load(5, T.address_of(gemm.a[row + TILE_ROWS, low + k * TILE_BYTES]), gemm.workload.channels))
        T.evaluate(tiles.load(6, T.address_of(gemm.w[block, low // 4 + k * 16, 0, 0]), TILE_BYTES))
        T.evaluate(tiles.load(7, T.address_of(gemm.w[_next(gemm, block), low // 4 + k * 16, 0, 0]), TILE_BYTES))
        dots(tiles)
    if (high - low) % TILE_BYTES > 0:
        for r, c in T.grid(ROWS, TILE_BYTES):
            inside = T.And(start + c >= high - (high - low) % TILE_BYTES, start + c < high)
            sums.rest[r, c] = T.Select(inside, gemm.a[row + r, start + c], T.uint8(0))
        T.evaluate(tiles.load(4, T.address_of(sums.rest[0, 0]), TILE_BYTES))
        T.evaluate(tiles.load(5, T.address_of(sums.rest[TILE_ROWS, 0]), TILE_BYTES))
        T.evaluate(tiles.load(6, T.address_of(gemm.w[block, start // 4, 0, 0]), TILE_BYTES))
        T.evaluate(tiles.load(7, T.address_of(gemm.w[_next(gemm, block), start // 4, 0, 0]), TILE_BYTES))
        dots(tiles)
    T.evaluate(tiles.store(0, T.address_of(sums.products[0, 0]), 4 * ROWS))
    T.evaluate(tiles.store(1, T.address_of(sums.products[0, LANES]), 4 * ROWS))
    T.evaluate(tiles.store(2, T.address_of(sums.products[TILE_ROWS, 0]), 4 * ROWS))
    T.evaluate(tiles.store(3, T.address_of(sums.products[TILE_ROWS, LANES]), 4 * ROWS))


@T.inline
def _add_group(gemm, sums, g, block, v):
    """``y = fma(float32(products + correction), multiplier, y)`` for the outputs of one block of 16."""
    if block * LANES + LANES <= gemm.outputs:
        for r in range(ROWS):
            sums.y[r, T.ramp(v * LANES, 1, LANES)] = fma(
                T.cast(
                    sums.products[r, T.ramp(v * LANES, 1, LANES)] + gemm.correction[g, T.ramp(block * LANES, 1, LANES)],
                    "float32x16",
                ),
                gemm.multiplier[g, T.ramp(block * LANES, 1, LANES)],
                sums.y[r, T.ramp(v * LANES, 1, LANES)],
            )
    else:
        for r, lane in T.grid(ROWS, gemm.outputs % LANES):
            sums.y[r, v * LANES + lane] = fma(
                T.cast(sums.products[r, v * LANES + lane] + gemm.correction[g, block * LANES + lane], "float32"),
                gemm.multiplier[g, block * LANES + lane],
                sums.y[r, v * LANES + lane],
                1,
            )


@T.inline
def _tile(gemm, scratch, row, block, tiles):
    """``ROWS`` rows of two blocks of outputs; beyond the last block, the last one again."""
    products = T.alloc_buffer((ROWS, ROWS), "int32")
    rest = T.alloc_buffer((ROWS, TILE_BYTES), "uint8")
    y = T.alloc_buffer((ROWS, ROWS), "float32")
    for r, v in T.grid(ROWS, 2):
        for lane in range(T.min(gemm.outputs - gemm.block(block + v) * LANES, LANES)):
            y[r, v * LANES + lane] = gemm.bias[gemm.block(block + v) * LANES + lane]
    for g in range(gemm.workload.groups):
        _multiply(gemm, _Sums(products, rest, y), row, block, gemm.bounds[g], gemm.bounds[g + 1], tiles)
        for v in range(2):
            _add_group(gemm, _Sums(products, rest, y), g, gemm.block(block + v), v)
    for r, v in T.grid(ROWS, 2):
        if gemm.outputs % LANES == 0:
            gemm.epilogue.store(gemm.out, *scratch, y[r, T.ramp(v * LANES, 1, LANES)], row + r, gemm.block(block + v))
        else:
            for lane in range(T.min(gemm.outputs - gemm.block(block + v) * LANES, LANES)):
                gemm.out[row + r, gemm.block(block + v) * LANES + lane] = y[r, v * LANES + lane]


@T.inline
def _tasks(grid, tiles, gemm):
    for task in T.parallel(grid.count):
        start = grid.start(task)
        panel = grid.panel(task)
        config = T.alloc_buffer((64,), "uint8")
        configure(config, tiles)
        floats = T.alloc_buffer((SCRATCH,), "float32", scope="local")
        ints = T.alloc_buffer((SCRATCH,), "int32", scope="local")
        gemm.epilogue.prepare(gemm.out, floats, ints)
        for i in range((T.min(gemm.rows - start, grid.block_rows) + ROWS - 1) // ROWS):
            # the last rows are counted from the end; rows done twice get the same values
            row = T.min(start + i * ROWS, gemm.rows - ROWS)
            _tile(gemm, (floats, ints), row, panel * 2, tiles)


@T.inline
def _by_rows(small, large, gemm):
    if gemm.rows < ROWS:
        small(gemm)
    else:
        large(gemm)


def amx_body(
    rows: int | Expr, workload: LinearWorkload, tiles: Tiles = AMX, schedule: LinearSchedule = DEFAULT
) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.GemmContext` whose weights are in layout "vnni16".

    Matrices smaller than a register tile are left to AVX512-VNNI, which every processor with AMX has.
    """
    small = vnni_body(rows, workload.outputs)
    if workload.channels < TILE_BYTES or (isinstance(rows, int) and rows < ROWS):
        return small
    large = partial(_tasks, TaskGrid(rows, -(-workload.blocks // 2), schedule), tiles)
    return large if isinstance(rows, int) else partial(_by_rows, small, large)
