"""Instructions of the parts of a streamed attention, each for a tile of queries; none where there is no tile.

:mod:`.stream` puts them into an order; :mod:`.plan` has sizes and places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm_ahcq.codegen.isa.generated.isa import Gemm, Instruction, Load, Logit, Prob, Scale, Store

from .addresses import AttentionAddresses
from .buffers import Buffers, QueryTile
from .plan import MINUS_SCALE, PROBABILITIES, QUERIES, SCALES, SUM_SCALE, AttentionPlan
from .relative import RelativePositions


@dataclass
class Step:
    """Work of the array at a time: the load of the chunk of keys or values that it needs, and instructions."""

    load: Load | None
    instructions: list[Instruction]

    def loads(self) -> list[Instruction]:
        """Return its LOAD, if it has one."""
        return [self.load] if self.load else []


class Writer:
    """Instructions of the parts of a period, and the buffers that come next."""

    def __init__(self, plan: AttentionPlan, addresses: AttentionAddresses) -> None:
        self.plan, self.addresses = plan, addresses
        self.buffers, self.relative = Buffers(plan), RelativePositions(plan, addresses)
        self.upcoming = Step(None, [])  # scores of the next tile, where their keys are loaded long before
        self._next_chunk = 0
        self._next_probabilities = 0
        self._waiting: dict[tuple[QueryTile, int], int] = {}  # places of probabilities that wait for their values

    def tables(self) -> list[Instruction]:
        """Load what stays on the chip: decode tables, encoder, scales, tables of relative positions."""
        scales = SCALES * self.plan.config.dim // 2
        return [
            Load(memory="decode", rows=1, length=24, address=self.addresses.decode),
            Load(memory="encode", rows=1, length=32, address=self.addresses.encode),
            Load(memory="vec", rows=1, length=scales, address=self.addresses.scales),
            *self.relative.tables(),
        ]

    def queries(self, tile: QueryTile | None) -> list[Instruction]:
        """Load the queries of a tile."""
        if tile is None:
            return []
        plan, word = self.plan, self.plan.config.dim // 2
        return [
            Load(
                memory="act",
                rows=plan.channel_blocks,
                length=plan.rows * word // 8,
                sp=self.buffers.queries(tile),
                sp_stride=plan.rows,
                address=self.addresses.queries + self.buffers.query_words(tile) * word,
                stride=plan.padded_queries * word,
            )
        ]

    def scores(self, tile: QueryTile | None, chunk: int) -> Step:
        """Multiply a tile's queries with the keys of a chunk."""
        if tile is None:
            return Step(None, [])
        plan = self.plan
        load, lines = self._chunk(self.addresses.keys, tile, chunk)
        gemm = Gemm(
            rows=plan.rows,
            steps=plan.channel_blocks,
            blocks=lines * plan.row_blocks,
            act=self.buffers.queries(tile),
            act_stride=plan.rows,
            wgt=load.sp,
            wgt_stride=plan.chunk_keys,
            wgt_block=plan.config.dim,
            zero=plan.constants.k_zero,
            transpose=1,
            acc=self.buffers.scores(chunk),
            acc_block=plan.rows,
            decode=QUERIES,
        )
        return Step(load, [gemm])

    def logits(self, tile: QueryTile | None, chunk: int) -> list[Instruction]:
        """Compute the logits of a chunk, one line of keys at a time."""
        if tile is None:
            return []
        first, lines = self.buffers.lines(chunk)
        return [self._logit(tile, chunk, line, line - first) for line in range(first, first + lines)]

    def _logit(self, tile: QueryTile, chunk: int, line: int, line_in_chunk: int) -> Logit:
        plan, c = self.plan, self.plan.constants
        relative = int(plan.relative)
        heights = self.buffers.heights(tile) + line // plan.config.dim * plan.rows
        return Logit(
            rows=plan.rows,
            blocks=plan.row_blocks,
            acc=self.buffers.scores(chunk) + line_in_chunk * plan.row_blocks * plan.rows,
            acc_block=plan.rows,
            lgt=self.buffers.logits(tile) + line * plan.row_blocks,
            lgt_row=plan.blocks,
            stat=self.buffers.statistics(tile),
            mult=c.qk_multiplier,
            pre=c.qk_shift,
            shift=c.shift,
            valid=plan.valid(line),
            first=int(line == 0),
            rel=relative,
            rel_w=relative * plan.vec_w,
            rel_w_row=relative * plan.row_blocks,
            rel_h=relative * heights,
            rel_h_row=relative,
            rel_h_lane=relative * (line % plan.config.dim),
        )

    def probabilities(self, tile: QueryTile | None, chunk: int) -> list[Instruction]:
        """Encode the probabilities of a chunk."""
        if tile is None:
            return []
        plan = self.plan
        first, lines = self.buffers.lines(chunk)
        dst = plan.prob_at + self._next_probabilities * plan.chunk_blocks * plan.rows
        self._next_probabilities = (self._next_probabilities + 1) % plan.prob_slots
        self._waiting[tile, chunk] = dst
        return [
            Prob(
                rows=plan.rows,
                blocks=lines * plan.row_blocks,
                lgt=self.buffers.logits(tile) + first * plan.row_blocks,
                lgt_row=plan.blocks,
                stat=self.buffers.statistics(tile),
                dst=dst,
                dst_block=plan.rows,
            )
        ]

    def sums(self, tile: QueryTile | None, chunk: int) -> Step:
        """Multiply the probabilities of a chunk with its values, and add them up where no channel of these does.

        Values whose zero point is 1 higher give products that are less by the sum of the probabilities.
        """
        if tile is None:
            return Step(None, [])
        plan = self.plan
        load, lines = self._chunk(self.addresses.values, tile, chunk)
        gemm = Gemm(
            rows=plan.rows,
            steps=lines * plan.row_blocks,
            blocks=plan.channel_blocks,
            act=self._waiting.pop((tile, chunk)),
            act_stride=plan.rows,
            wgt=load.sp,
            wgt_stride=plan.config.dim,
            wgt_block=plan.chunk_keys,
            zero=plan.constants.v_zero,
            acc=self.buffers.sums(tile),
            acc_block=plan.rows,
            decode=PROBABILITIES,
            accumulate=int(chunk > 0),
        )
        gemms: list[Instruction] = [gemm]
        if plan.result_blocks > plan.channel_blocks:
            acc = gemm.acc + plan.channel_blocks * plan.rows
            gemms.append(replace(gemm, blocks=1, zero=plan.one, acc=acc))
        return Step(load, gemms)

    def finish(self, tile: QueryTile | None) -> list[Instruction]:
        """Store the results of a tile."""
        if tile is None:
            return []
        plan, dim, instructions = self.plan, self.plan.config.dim, list[Instruction]()
        for block in range(plan.result_blocks):
            out, acc = plan.vec_out + block * plan.rows, self.buffers.sums(tile) + block * plan.rows
            address = self.addresses.sums + self.buffers.result_words(tile, block) * dim * 4
            scale = Scale(memory="vec", rows=plan.rows, blocks=1, acc=acc, dst=out, mult=SUM_SCALE)
            if block == plan.channel_blocks:  # the first block less the same with another zero point
                scale = replace(scale, mult=MINUS_SCALE, add_mode=2, add=plan.vec_out)
            instructions += [
                scale,
                Store(memory="vec", rows=1, length=plan.rows * dim // 2, sp=out, address=address),
            ]
        return instructions

    def _chunk(self, address: int, tile: QueryTile, chunk: int) -> tuple[Load, int]:
        """LOAD of a chunk of keys or values into the next buffer, and the number of its lines."""
        plan, word = self.plan, self.plan.config.dim // 2
        first, lines = self.buffers.lines(chunk)
        sp = plan.ring + self._next_chunk * plan.channel_blocks * plan.chunk_keys
        self._next_chunk = 1 - self._next_chunk
        keys = tile.head * plan.channel_blocks * plan.keys + first * plan.row_keys
        load = Load(
            memory="wgt",
            rows=plan.channel_blocks,
            length=lines * plan.row_keys * word // 8,
            sp=sp,
            sp_stride=plan.chunk_keys,
            address=address + keys * word,
            stride=plan.keys * word,
        )
        return load, lines
