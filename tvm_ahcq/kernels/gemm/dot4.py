"""Grouped-scale integer GEMM in layout "vnni16" for processors without AVX512-VNNI: AVX2 and both kinds of NEON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.dot4 import dot4
from tvm_ahcq.kernels.common.vector import LANES, fma
from tvm_ahcq.target import HostTarget

from .epilogue import PLAIN, SCRATCH, Epilogue
from .tiling import DEFAULT, LinearSchedule


@T.inline
def _adjust(w, bounds, correction, adjusted, groups, n, block, centred):
    """Corrections of one block of 16 outputs, padded with 0; with what centred codes leave out added."""
    for g in range(groups):
        for lane in range(LANES):
            adjusted[g, block * LANES + lane] = T.if_then_else(
                block * LANES + lane < n, correction[g, T.min(block * LANES + lane, n - 1)], 0
            )
        if centred:
            for k in range((bounds[g + 1] - bounds[g]) // 4):
                for lane, i in T.grid(LANES, 4):
                    adjusted[g, block * LANES + lane] = adjusted[g, block * LANES + lane] + 128 * T.cast(
                        w[block, bounds[g] // 4 + k, lane, i], "int32"
                    )


@T.inline
def _steps(sums, a, w, first_row, rows, block, k, dot):
    """Add four channels to every sum of the tile."""
    for r in T.unroll(dot.rows):
        for u in T.unroll(dot.units):
            sums[r * dot.units + u] = dot.step(
                sums[r * dot.units + u],
                T.reinterpret("int32", a[T.min(first_row + r, rows - 1), T.ramp(k * 4, 1, 4)]),
                w[block, k, 0, T.ramp(u * dot.unit_bytes, 1, dot.unit_bytes)],
            )


@T.inline
def _clear(sums, dtype, lanes, count):
    for i in T.unroll(count):
        sums[i] = T.broadcast(T.cast(0, dtype), lanes)


@T.inline
def _narrow_steps(sums, a, w, first_row, rows, block, k, count, dot, partial_lanes):
    """As many steps as a partial sum holds, or fewer."""
    partial = T.alloc_buffer((dot.rows * dot.units,), dot.partial_type, scope="local")
    _clear(partial, "int16", partial_lanes, dot.rows * dot.units)
    for i in range(count):
        _steps(partial, a, w, first_row, rows, block, k + i, dot)
    for i in T.unroll(dot.rows * dot.units):
        sums[i] = dot.flush(sums[i], partial[i])


@T.inline
def _multiply(sums, a, w, first_row, rows, block, low, high, dot, sum_lanes, partial_lanes):
    """Integer products of one group, which spans quadruples of channels from `low` to `high`."""
    _clear(sums, "int32", sum_lanes, dot.rows * dot.units)
    if dot.depth == 0:
        for k in range(high - low):
            _steps(sums, a, w, first_row, rows, block, low + k, dot)
    else:
        for i in range((high - low) // dot.depth):
            _narrow_steps(sums, a, w, first_row, rows, block, low + i * dot.depth, dot.depth, dot, partial_lanes)
        if (high - low) % dot.depth > 0:
            _narrow_steps(
                sums,
                a,
                w,
                first_row,
                rows,
                block,
                high - (high - low) % dot.depth,
                (high - low) % dot.depth,
                dot,
                partial_lanes,
            )


@T.inline
def _add_group(y, sums, products, multiplier, adjusted, g, n, block, dot):
    """``y = fma(float32(products + correction), multiplier, y)``."""
    for r in T.unroll(dot.rows):
        for u in T.unroll(dot.units // dot.units_per_finish):
            products[T.ramp(u * dot.outputs, 1, dot.outputs)] = dot.finish(
                *[sums[r * dot.units + u * dot.units_per_finish + i] for i in range(dot.units_per_finish)]
            )
        if block * LANES + LANES <= n:
            y[T.ramp(r * LANES, 1, LANES)] = fma(
                T.cast(
                    products[T.ramp(0, 1, LANES)] + adjusted[g, T.ramp(block * LANES, 1, LANES)],
                    "float32x16",
                ),
                multiplier[g, T.ramp(block * LANES, 1, LANES)],
                y[T.ramp(r * LANES, 1, LANES)],
            )
        else:
            for lane in range(n % LANES):
                y[r * LANES + lane] = fma(
                    T.cast(products[lane] + adjusted[g, block * LANES + lane], "float32"),
                    multiplier[g, block * LANES + lane],
                    y[r * LANES + lane],
                    1,
                )


def dot4_body(
    rows: int | Expr,
    n: int,
    groups: int,
    target: HostTarget,
    weight_bits: int,
    schedule: LinearSchedule = DEFAULT,
    epilogue: Epilogue = PLAIN,
) -> Callable[..., None]:
    """Inline function with the arguments of the kernel, whose weights are in layout "vnni16".

    With another epilogue than `PLAIN`, outputs are a multiple of 16, and the last argument is what it takes.
    """
    dot, blocks = dot4(target, weight_bits), -(-n // LANES)
    if schedule.tile_rows:
        dot = replace(dot, rows=schedule.tile_rows)
    block_rows, rows_first = schedule.block_rows, schedule.rows_first
    row_blocks = (rows + block_rows - 1) // block_rows
    sum_lanes, partial_lanes = (int(dtype.split("x")[1]) for dtype in (dot.sum_type, dot.partial_type))

    @T.inline
    def tile(a, w, bounds, multiplier, adjusted, bias, out, floats, ints, first_row, block):
        """Rows past the end repeat the last one, and store the same values again."""
        sums = T.alloc_buffer((dot.rows * dot.units,), dot.sum_type, scope="local")
        products = T.alloc_buffer((LANES,), "int32", scope="local")
        y = T.alloc_buffer((dot.rows * LANES,), "float32", scope="local")
        for r in range(dot.rows):
            for lane in range(T.min(n - block * LANES, LANES)):
                y[r * LANES + lane] = bias[block * LANES + lane]
        for g in range(groups):
            _multiply(
                sums, a, w, first_row, rows, block, bounds[g] // 4, bounds[g + 1] // 4, dot, sum_lanes, partial_lanes
            )
            _add_group(y, sums, products, multiplier, adjusted, g, n, block, dot)
        for r in range(dot.rows):
            if n % LANES == 0:
                epilogue.store(out, floats, ints, y[T.ramp(r * LANES, 1, LANES)], T.min(first_row + r, rows - 1), block)
            else:
                for lane in range(T.min(n - block * LANES, LANES)):
                    out[T.min(first_row + r, rows - 1), block * LANES + lane] = y[r * LANES + lane]

    @T.inline
    def body(a, w, bounds, multiplier, correction, bias, out):
        adjusted = T.alloc_buffer((groups, blocks * LANES), "int32")
        for block in T.parallel(blocks):
            _adjust(w, bounds, correction, adjusted, groups, n, block, dot.centred)
        for task in T.parallel(row_blocks * blocks):
            start = (task % row_blocks if rows_first else task // blocks) * block_rows
            block = task // row_blocks if rows_first else task % blocks
            floats = T.alloc_buffer((SCRATCH,), "float32", scope="local")
            ints = T.alloc_buffer((SCRATCH,), "int32", scope="local")
            epilogue.prepare(out, floats, ints)
            for i in range((T.min(rows - start, block_rows) + dot.rows - 1) // dot.rows):
                tile(a, w, bounds, multiplier, adjusted, bias, out, floats, ints, start + i * dot.rows, block)

    return body
