"""Grouped-scale integer GEMM with AVX512-VNNI: ``vpdpbusd`` multiplies 64 pairs of bytes an instruction."""

from __future__ import annotations

from itertools import accumulate

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from .vector import LANES, extent, fma, four_codes, select_by, vpdpbusd

_TILE_ROWS = {1: 12, 2: 12, 3: 8, 4: 6, 5: 5}
"""Rows of a register tile by its width in vectors: accumulators, weights and one broadcast fill the 32 registers."""

_BLOCK_ROWS = 96
"""Rows that share one pass over a panel of weights, which then stays in the L2 cache; a multiple of every tile."""


def _panel_width(blocks: int) -> int:
    """Width, in vectors, of the panels that `blocks` vectors of output columns are cut into."""
    return next((width for width in (4, 3, 5, 2) if blocks % width == 0), min(blocks, 4))


def linear_vnni(m: int | Expr, n: int, group_sizes: tuple[int, ...]) -> PrimFunc:
    """Kernel for weights in layout "vnni16"; parameters as :func:`tvm_ahcq.topi.grouped_linear`."""
    rows, kp, groups = extent(m, "m"), sum(group_sizes), len(group_sizes)
    starts = [size // 4 for size in accumulate(group_sizes, initial=0)]
    blocks, partial = -(-n // LANES), n % LANES
    width = _panel_width(blocks)
    panels = -(-blocks // width)
    # The last panel differs if it is narrower or if its last vector is not full.
    last_width = blocks - (panels - 1) * width
    whole_panels = panels if last_width == width and partial == 0 else panels - 1
    mr, last_mr = _TILE_ROWS[width], _TILE_ROWS[last_width]
    last_full = last_width - (partial > 0)
    row_blocks = (rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS

    @T.inline
    def tile(a, w, multiplier, correction, bias, out, first_row, first_block, mr, nv, tail, full):
        """One register tile: `nv` vectors of columns, the last one with `tail` columns (0 if full)."""
        acc = T.alloc_buffer((mr * nv,), "int32x16", scope="local")
        y = T.alloc_buffer((mr * nv * LANES,), "float32", scope="local")
        for r in T.unroll(mr):
            for v in T.unroll(full):
                y[T.ramp((r * nv + v) * LANES, 1, LANES)] = bias[T.ramp((first_block + v) * LANES, 1, LANES)]
            for lane in range(tail):
                y[(r * nv + full) * LANES + lane] = bias[(first_block + full) * LANES + lane]
        for g in range(groups):
            low = select_by(g, starts[:-1])
            high = select_by(g, starts[1:])
            for i in T.unroll(mr * nv):
                acc[i] = T.broadcast(0, LANES)
            for k in range(high - low):
                for r in T.unroll(mr):
                    for v in T.unroll(nv):
                        acc[r * nv + v] = vpdpbusd(
                            acc[r * nv + v],
                            four_codes(a[T.min(first_row + r, rows - 1), T.ramp((low + k) * 4, 1, 4)]),
                            w[first_block + v, low + k, 0, T.ramp(0, 1, 64)],
                        )
            for r in T.unroll(mr):
                for v in T.unroll(full):
                    y[T.ramp((r * nv + v) * LANES, 1, LANES)] = fma(
                        T.cast(
                            acc[r * nv + v] + correction[g, T.ramp((first_block + v) * LANES, 1, LANES)], "float32x16"
                        ),
                        multiplier[g, T.ramp((first_block + v) * LANES, 1, LANES)],
                        y[T.ramp((r * nv + v) * LANES, 1, LANES)],
                    )
                if tail > 0:
                    lanes = T.alloc_buffer((LANES,), "int32", scope="local")
                    lanes[T.ramp(0, 1, LANES)] = acc[r * nv + full]
                    for lane in range(tail):
                        y[(r * nv + full) * LANES + lane] = fma(
                            T.cast(lanes[lane] + correction[g, (first_block + full) * LANES + lane], "float32"),
                            multiplier[g, (first_block + full) * LANES + lane],
                            y[(r * nv + full) * LANES + lane],
                            1,
                        )
        # Rows past the end repeat the last one, and store the same values again.
        for r in T.unroll(mr):
            for v in T.unroll(full):
                out[T.min(first_row + r, rows - 1), T.ramp((first_block + v) * LANES, 1, LANES)] = y[
                    T.ramp((r * nv + v) * LANES, 1, LANES)
                ]
            for lane in range(tail):
                out[T.min(first_row + r, rows - 1), (first_block + full) * LANES + lane] = y[
                    (r * nv + full) * LANES + lane
                ]

    @T.prim_func(s_tir=True)
    def main(
        a_handle: T.handle,
        w_handle: T.handle,
        multiplier_handle: T.handle,
        correction_handle: T.handle,
        bias_handle: T.handle,
        out_handle: T.handle,
    ):
        T.func_attr({"global_symbol": "ahcq_grouped_linear", "tirx.noalias": True, "tirx.is_scheduled": True})
        a = T.match_buffer(a_handle, (rows, kp), "uint8", align=4)
        w = T.match_buffer(w_handle, (blocks, kp // 4, LANES, 4), "int8", align=4)
        multiplier = T.match_buffer(multiplier_handle, (groups, n), "float32", align=4)
        correction = T.match_buffer(correction_handle, (groups, n), "int32", align=4)
        bias = T.match_buffer(bias_handle, (n,), "float32", align=4)
        out = T.match_buffer(out_handle, (rows, n), "float32", align=4)
        for task in T.parallel(row_blocks * panels):
            start = task // panels * _BLOCK_ROWS
            panel = task % panels
            if whole_panels > 0:
                if panel < whole_panels:
                    for i in range((T.min(rows - start, _BLOCK_ROWS) + mr - 1) // mr):
                        tile(
                            a, w, multiplier, correction, bias, out,
                            start + i * mr, panel * width, mr, width, 0, width,
                        )  # fmt: skip
            if whole_panels < panels:
                if panel >= whole_panels:
                    for i in range((T.min(rows - start, _BLOCK_ROWS) + last_mr - 1) // last_mr):
                        tile(
                            a, w, multiplier, correction, bias, out,
                            start + i * last_mr, whole_panels * width, last_mr, last_width, partial, last_full,
                        )  # fmt: skip

    return main
