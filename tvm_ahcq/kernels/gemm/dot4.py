"""Grouped-scale integer GEMM in layout "vnni16" for processors without AVX512-VNNI: AVX2 and both kinds of NEON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.dot4 import Dot4, dot4
from tvm_ahcq.kernels.common.vector import LANES, fma
from tvm_ahcq.target import HostTarget

from .context import TaskGrid
from .epilogue import SCRATCH
from .tiling import DEFAULT, LinearSchedule
from .workload import LinearWorkload

_LONG_GROUP = 128
"""Channels of a group from which on it counts as long."""


@dataclass(frozen=True)
class _Sums:
    """Integer sums of a register tile, products of one of its rows, and its outputs so far."""

    sums: Buffer
    products: Buffer
    y: Buffer


def _finished(dot: Dot4, sums: Buffer, r: Expr, v: Expr) -> list[Expr]:
    """Sums that make up vector `v` of the outputs of row `r`."""
    first = r * dot.units + v * dot.units_per_finish
    return [sums[first + i] for i in range(dot.units_per_finish)]


@T.inline
def _adjust(gemm, adjusted, block):
    """Corrections of one block of 16 outputs, plus 128 times the sum of the weights."""
    for g in range(gemm.workload.groups):
        for lane in range(T.min(gemm.outputs - block * LANES, LANES)):
            adjusted[g, block * LANES + lane] = gemm.correction[g, block * LANES + lane]
            for k in range((gemm.bounds[g + 1] - gemm.bounds[g]) // 4):
                for i in range(4):
                    adjusted[g, block * LANES + lane] = adjusted[g, block * LANES + lane] + 128 * T.cast(
                        gemm.w[block, gemm.bounds[g] // 4 + k, lane, i], "int32"
                    )


@T.inline
def _steps(gemm, dot, sums, first_row, block, k):
    """Add four channels to every sum of the tile."""
    for r in T.unroll(dot.rows):
        for u in T.unroll(dot.units):
            sums[r * dot.units + u] = dot.step(
                sums[r * dot.units + u],
                T.reinterpret("int32", gemm.a[gemm.row(first_row, r), T.ramp(k * 4, 1, 4)]),
                gemm.w[block, k, 0, T.ramp(u * dot.unit_bytes, 1, dot.unit_bytes)],
            )


@T.inline
def _clear(sums, dtype, lanes, count):
    for i in T.unroll(count):
        sums[i] = T.broadcast(T.cast(0, dtype), lanes)


@T.inline
def _narrow_steps(gemm, dot, sums, first_row, block, k, count):
    """As many steps as a partial sum holds, or fewer."""
    partial_sums = T.alloc_buffer((dot.rows * dot.units,), dot.partial_type, scope="local")
    _clear(partial_sums, "int16", dot.partial_lanes, dot.rows * dot.units)
    for i in range(count):
        _steps(gemm, dot, partial_sums, first_row, block, k + i)
    for i in T.unroll(dot.rows * dot.units):
        sums[i] = dot.flush(sums[i], partial_sums[i])


@T.inline
def _multiply(gemm, dot, sums, first_row, block, low, high):
    """Integer products of one group, which spans quadruples of channels from `low` to `high`."""
    _clear(sums, "int32", dot.sum_lanes, dot.rows * dot.units)
    if dot.depth == 0:
        for k in range(high - low):
            _steps(gemm, dot, sums, first_row, block, low + k)
    elif dot.depth * 4 >= gemm.workload.channels:
        _narrow_steps(gemm, dot, sums, first_row, block, low, high - low)
    else:
        for i in range((high - low + dot.depth - 1) // dot.depth):
            count = T.meta_var(T.min(high - low - i * dot.depth, dot.depth))
            _narrow_steps(gemm, dot, sums, first_row, block, low + i * dot.depth, count)


@T.inline
def _add_group(gemm, dot, tile, correction, g, block):
    """``y = fma(float32(products + correction), multiplier, y)``, straight from registers."""
    for r in T.unroll(dot.rows):
        for v in T.unroll(LANES // dot.outputs):
            at = T.meta_var(T.ramp(r * LANES + v * dot.outputs, 1, dot.outputs))
            column = T.meta_var(T.ramp(block * LANES + v * dot.outputs, 1, dot.outputs))
            products = T.meta_var(dot.finish(*_finished(dot, tile.sums, r, v)))
            tile.y[at] = fma(
                T.cast(products + correction[g, column], f"float32x{dot.outputs}"),
                gemm.multiplier[g, column],
                tile.y[at],
                dot.outputs,
            )


@T.inline
def _add_group_to_some(gemm, dot, tile, correction, g, block):
    """The same for the last block, which has fewer than 16 outputs."""
    for r in T.unroll(dot.rows):
        for v in T.unroll(LANES // dot.outputs):
            tile.products[T.ramp(v * dot.outputs, 1, dot.outputs)] = dot.finish(*_finished(dot, tile.sums, r, v))
        for lane in range(gemm.outputs % LANES):
            tile.y[r * LANES + lane] = fma(
                T.cast(tile.products[lane] + correction[g, block * LANES + lane], "float32"),
                gemm.multiplier[g, block * LANES + lane],
                tile.y[r * LANES + lane],
                1,
            )


@T.inline
def _begin(gemm, dot, y, block):
    """The outputs start with the bias."""
    for r in T.unroll(dot.rows):
        if gemm.outputs % LANES == 0:
            y[T.ramp(r * LANES, 1, LANES)] = gemm.bias[T.ramp(block * LANES, 1, LANES)]
        else:
            for lane in range(T.min(gemm.outputs - block * LANES, LANES)):
                y[r * LANES + lane] = gemm.bias[block * LANES + lane]


@T.inline
def _store(gemm, dot, scratch, y, first_row, block):
    """Rows past the end have repeated the last one, and store the same values again."""
    for r in T.unroll(dot.rows):
        if gemm.outputs % LANES == 0:
            gemm.epilogue.store(gemm.out, *scratch, y[T.ramp(r * LANES, 1, LANES)], gemm.row(first_row, r), block)
        else:
            for lane in range(T.min(gemm.outputs - block * LANES, LANES)):
                gemm.out[gemm.row(first_row, r), block * LANES + lane] = y[r * LANES + lane]


@T.inline
def _tile(gemm, dot, correction, scratch, first_row, block):
    """A register tile."""
    sums = T.alloc_buffer((dot.rows * dot.units,), dot.sum_type, scope="local")
    products = T.alloc_buffer((LANES,), "int32", scope="local")
    y = T.alloc_buffer((dot.rows * LANES,), "float32", scope="local")
    _begin(gemm, dot, y, block)
    for g in range(gemm.workload.groups):
        _multiply(gemm, dot, sums, first_row, block, gemm.bounds[g] // 4, gemm.bounds[g + 1] // 4)
        if gemm.outputs % LANES == 0:
            _add_group(gemm, dot, _Sums(sums, products, y), correction, g, block)
        else:
            if block * LANES + LANES <= gemm.outputs:
                _add_group(gemm, dot, _Sums(sums, products, y), correction, g, block)
            else:
                _add_group_to_some(gemm, dot, _Sums(sums, products, y), correction, g, block)
    _store(gemm, dot, scratch, y, first_row, block)


@T.inline
def _tasks(grid, dot, gemm, correction):
    for task in T.parallel(grid.count):
        start = T.meta_var(grid.start(task))
        block = T.meta_var(grid.panel(task))
        floats = T.alloc_buffer((SCRATCH,), "float32", scope="local")
        ints = T.alloc_buffer((SCRATCH,), "int32", scope="local")
        gemm.epilogue.prepare(gemm.out, floats, ints)
        for i in range((T.min(gemm.rows - start, grid.block_rows) + dot.rows - 1) // dot.rows):
            _tile(gemm, dot, correction, (floats, ints), start + i * dot.rows, block)


@T.inline
def _body(grid, dot, gemm):
    if dot.centred:
        adjusted = T.alloc_buffer((gemm.workload.groups, gemm.outputs), "int32")
        for block in T.parallel(gemm.blocks):
            _adjust(gemm, adjusted, block)
        _tasks(grid, dot, gemm, adjusted)
    else:
        _tasks(grid, dot, gemm, gemm.correction)


def dot4_body(
    rows: int | Expr, workload: LinearWorkload, target: HostTarget, schedule: LinearSchedule = DEFAULT
) -> Callable[..., None]:
    """Return the inline function of a :class:`.context.GemmContext` whose weights are in layout "vnni16"."""
    dot = dot4(target, workload.weight_bits, workload.operand_max, workload.exact_steps)
    short = workload.channels < _LONG_GROUP * workload.groups
    dot = replace(dot, rows=schedule.tile_rows or (dot.short_rows if short else dot.rows))
    return partial(_body, TaskGrid(rows, workload.blocks, schedule), dot)
