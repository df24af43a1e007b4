"""Instructions for the relative positions of a tile; none where there is no tile, or no table.

Relative positions are products of the queries with a table of int8, held in two halves like keys. All queries of a
segment have one height: their height terms are a stretch of the table. Width terms differ from query to query: those of
every distance go to memory and come back with a pitch one number short, which slides each query's window into place.
"""

from __future__ import annotations

from tvm_ahcq.codegen.isa.generated.isa import Gemm, Instruction, Load, Scale, Store

from .addresses import AttentionAddresses
from .buffers import Buffers, QueryTile
from .plan import HEIGHT_SCALE, QUERIES, QUERIES_HIGH, WIDTH_SCALE, AttentionPlan

_HIGH_ZERO = 8
"""Zero point of the high halves of a table, which are signed; that of the low halves is 0."""

_HEIGHTS, _WIDTHS = range(2)
"""Tables."""


class RelativePositions:
    """Instructions of the parts of relative positions."""

    def __init__(self, plan: AttentionPlan, addresses: AttentionAddresses) -> None:
        self.plan, self.addresses, self.buffers = plan, addresses, Buffers(plan)

    def tables(self) -> list[Instruction]:
        """Load both tables into ``wgt``."""
        plan, loads = self.plan, list[Instruction]()
        if plan.relative:
            for address, sp, entries in zip(self.addresses.rel_tables, plan.rel_wgt, plan.entries, strict=True):
                length = 2 * plan.channel_blocks * entries * plan.config.dim // 16
                loads.append(Load(memory="wgt", rows=1, length=length, sp=sp, address=address))
        return loads

    def widths(self, tile: QueryTile | None) -> list[Instruction]:
        """Compute the width terms of every distance, and store them."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        acc = plan.acc_relative + plan.h_blocks * plan.rows
        x, count = plan.segments(tile.index)[0].x, min(plan.tile_queries, plan.width)  # the same of every segment
        instructions = self._products(self.buffers.queries(tile), plan.rows, _WIDTHS, plan.width - x - count, acc)
        for block in range(plan.w_blocks):
            far = plan.vec_far + block * plan.rows
            instructions += [
                self._scale(acc + block * plan.rows, far, WIDTH_SCALE),
                Store(
                    memory="vec",
                    rows=plan.rows,
                    length=plan.config.dim // 2,
                    sp=far,
                    sp_stride=1,
                    address=self.addresses.rel_buffers[tile.buffer] + 4 * block * plan.config.dim,
                    stride=plan.rel_pitch,
                ),
            ]
        return instructions

    def heights(self, tile: QueryTile | None) -> list[Instruction]:
        """Compute the height terms of a tile's queries in ``vec``."""
        plan, acc, instructions = self.plan, self.plan.acc_relative, list[Instruction]()
        if tile is None or not plan.relative:
            return []
        for segment in plan.segments(tile.index):
            act = self.buffers.queries(tile) + segment.at
            offset = plan.height - 1 - segment.y
            instructions += self._products(act, segment.count, _HEIGHTS, offset, acc + segment.at)
        for block in range(plan.h_blocks):
            near = self.buffers.heights(tile) + block * plan.rows
            instructions.append(self._scale(acc + block * plan.rows, near, HEIGHT_SCALE))
        return instructions

    def windows(self, tile: QueryTile | None) -> list[Instruction]:
        """Load the width terms of a tile, each query's window."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        buffer = self.addresses.rel_buffers[tile.buffer]
        return [
            Load(
                memory="vec",
                rows=segment.count,
                length=plan.row_keys // 2,
                sp=plan.vec_w + segment.at * plan.row_blocks,
                sp_stride=plan.row_blocks,
                address=buffer + segment.at * plan.rel_pitch + 4 * (segment.count - 1),
                stride=plan.rel_pitch - 4,
            )
            for segment in plan.segments(tile.index)
        ]

    def _scale(self, acc: int, dst: int, mult: int) -> Scale:
        """One column block of a tile, to ``vec``."""
        pre = self.plan.constants.rel_shift
        return Scale(memory="vec", rows=self.plan.rows, blocks=1, acc=acc, dst=dst, mult=mult, pre=pre)

    def _products(self, act: int, rows: int, table: int, offset: int, acc: int) -> list[Instruction]:
        """Queries times both halves of a stretch of a table."""
        plan, size = self.plan, self.plan.entries[table]
        return [
            Gemm(
                rows=rows,
                steps=plan.channel_blocks,
                blocks=(plan.h_blocks, plan.w_blocks)[table],
                act=act,
                act_stride=plan.rows,
                wgt=plan.rel_wgt[table] + half * plan.channel_blocks * size + offset,
                wgt_stride=size,
                wgt_block=plan.config.dim,
                zero=(_HIGH_ZERO, 0)[half],
                transpose=1,
                acc=acc,
                acc_block=plan.rows,
                decode=(QUERIES_HIGH, QUERIES)[half],
                accumulate=half,
            )
            for half in range(2)
        ]
