"""Instructions of the parts of a streamed attention, each for a tile of queries; nothing where there is no tile.

:mod:`.attention_stream` puts them into an order; :mod:`.attention_plan` has sizes and places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm_ahcq.codegen.isa.dependency_tokens import Entry

from .plan import PROBABILITIES, QUERIES, QUERIES_HIGH, Plan

_SUMS, _HEIGHTS, _WIDTHS = range(3)
"""Words of scales in ``vec``."""


@dataclass(frozen=True)
class Tile:
    """The queries with this index in a head; the number of the tile in the program."""

    head: int
    index: int
    number: int

    @property
    def buffer(self) -> int:
        """Which of two buffers it uses."""
        return self.number % 2


@dataclass
class Step:
    """What the array does at a time: the chunk of keys or values that it needs, and instructions."""

    load: Entry | None
    entries: list[Entry]

    def loads(self) -> list[Entry]:
        """Its LOAD, if it has one."""
        return [self.load] if self.load else []


def tables(plan: Plan) -> list[Entry]:
    """What stays on the chip: decode tables, encoder, scales, tables of relative positions."""
    entries: list[Entry] = [
        ("load", {"memory": "decode", "rows": 1, "length": 24, "address": plan.at["decode"]}),
        ("load", {"memory": "encode", "rows": 1, "length": 32, "address": plan.at["encode"]}),
        ("load", {"memory": "vec", "rows": 1, "length": 3 * plan.config.dim // 2, "address": plan.at["scales"]}),
    ]
    if plan.relative:
        for name, at, size in zip("hw", plan.rel_wgt, plan.entries, strict=True):
            chunks = 2 * plan.parts * size * plan.config.dim // 16
            entries.append(
                (
                    "load",
                    {
                        "memory": "wgt",
                        "rows": 1,
                        "length": chunks,
                        "sp": at,
                        "address": plan.at[name],
                    },
                )
            )
    return entries


class Writer:
    """Instructions of the parts of a period, and which buffers come next."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._ring = 0
        self._prob = 0
        self.upcoming = Step(None, [])  # scores of the next tile, where their keys are loaded long before
        self._places: dict[tuple[Tile, int], int] = {}  # of probabilities that wait for their values

    def row_groups(self) -> list[tuple[int, int]]:
        """Rows (first, count) whose sums are taken at a time: in pieces where logits come in pieces too."""
        rows = self.plan.rows
        count = rows if self.plan.chunks == 1 else max(1, rows // (self.plan.chunks // 2 or 1))
        return [(first, min(count, rows - first)) for first in range(0, rows, count)]

    def queries(self, tile: Tile | None) -> list[Entry]:
        """Queries of a tile."""
        plan = self.plan
        if tile is None:
            return []
        word = plan.config.dim // 2
        return [
            (
                "load",
                {
                    "memory": "act",
                    "rows": plan.parts,
                    "length": plan.rows * word // 8,
                    "sp": self._act(tile),
                    "sp_stride": plan.rows,
                    "stride": plan.padded_queries * word,
                    "address": plan.at["q"] + self._place(tile) * word,
                },
            )
        ]

    def widths(self, tile: Tile | None) -> list[Entry]:
        """Width terms of every distance, to memory."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        acc = plan.acc_relative + plan.h_blocks * plan.rows
        entries: list[Entry] = []
        x, count = plan.segments(tile.index)[0].x, min(plan.tile_queries, plan.width)  # the same of every segment
        entries += self._products(self._act(tile), plan.rows, 1, plan.width - x - count, acc)
        for block in range(plan.w_blocks):
            far = plan.vec_far + block * plan.rows
            entries.append(self._scale(acc + block * plan.rows, far, _WIDTHS, plan.constants.rel_shift))
            entries.append(
                (
                    "store",
                    {
                        "memory": "vec",
                        "rows": plan.rows,
                        "length": plan.config.dim // 2,
                        "sp_stride": 1,
                        "sp": far,
                        "stride": plan.rel_pitch,
                        "address": plan.rel_buffers[tile.buffer] + 4 * block * plan.config.dim,
                    },
                )
            )
        return entries

    def heights(self, tile: Tile | None) -> list[Entry]:
        """Height terms of a tile's queries, to ``vec``."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        acc = plan.acc_relative
        entries: list[Entry] = []
        for segment in plan.segments(tile.index):
            act = self._act(tile) + segment.at
            entries += self._products(act, segment.count, 0, plan.height - 1 - segment.y, acc + segment.at)
        for block in range(plan.h_blocks):
            near = self._vec_h(tile) + block * plan.rows
            entries.append(self._scale(acc + block * plan.rows, near, _HEIGHTS, plan.constants.rel_shift))
        return entries

    def _scale(self, acc: int, dst: int, mult: int, pre: int) -> Entry:
        """One column block of a tile, to ``vec``."""
        return "scale", {
            "memory": "vec",
            "rows": self.plan.rows,
            "blocks": 1,
            "acc": acc,
            "dst": dst,
            "mult": mult,
            "pre": pre,
        }

    def _products(self, act: int, rows: int, table: int, offset: int, acc: int) -> list[Entry]:
        """Queries times both halves of a stretch of a table of relative positions."""
        plan = self.plan
        size = plan.entries[table]
        return [
            (
                "gemm",
                {
                    "rows": rows,
                    "steps": plan.parts,
                    "blocks": (plan.h_blocks, plan.w_blocks)[table],
                    "act": act,
                    "act_stride": plan.rows,
                    "wgt": plan.rel_wgt[table] + plane * plan.parts * size + offset,
                    "wgt_stride": size,
                    "wgt_block": plan.config.dim,
                    "zero": (8, 0)[plane],
                    "transpose": 1,
                    "acc": acc,
                    "acc_block": plan.rows,
                    "decode": (QUERIES_HIGH, QUERIES)[plane],
                    "accumulate": plane,
                },
            )
            for plane in range(2)
        ]

    def windows(self, tile: Tile | None) -> list[Entry]:
        """Width terms of a tile back from memory, each query's window."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        return [
            (
                "load",
                {
                    "memory": "vec",
                    "rows": segment.count,
                    "length": plan.row_keys // 2,
                    "sp_stride": plan.row_blocks,
                    "sp": plan.vec_w + segment.at * plan.row_blocks,
                    "stride": plan.rel_pitch - 4,
                    "address": plan.rel_buffers[tile.buffer] + segment.at * plan.rel_pitch + 4 * (segment.count - 1),
                },
            )
            for segment in plan.segments(tile.index)
        ]

    def scores(self, tile: Tile | None, chunk: int) -> Step:
        """Products of a tile's queries with the keys of a chunk."""
        plan = self.plan
        if tile is None:
            return Step(None, [])
        load, at, lines = self._chunk("k", tile, chunk)
        return Step(
            load,
            [
                (
                    "gemm",
                    {
                        "rows": plan.rows,
                        "steps": plan.parts,
                        "blocks": lines * plan.row_blocks,
                        "act": self._act(tile),
                        "act_stride": plan.rows,
                        "wgt": at,
                        "wgt_stride": plan.chunk_keys,
                        "wgt_block": plan.config.dim,
                        "zero": plan.constants.k_zero,
                        "transpose": 1,
                        "acc": self._acc(chunk),
                        "acc_block": plan.rows,
                        "decode": QUERIES,
                    },
                )
            ],
        )

    def logits(self, tile: Tile | None, chunk: int) -> list[Entry]:
        """Logits of a chunk, one picture row of keys at a time."""
        plan, c = self.plan, self.plan.constants
        if tile is None:
            return []
        first, lines = self._lines(chunk)
        entries: list[Entry] = []
        for line in range(first, first + lines):
            values: dict[str, Any] = {
                "rows": plan.rows,
                "blocks": plan.row_blocks,
                "acc_block": plan.rows,
                "lgt_row": plan.blocks,
                "acc": self._acc(chunk) + (line - first) * plan.row_blocks * plan.rows,
                "lgt": self._lgt(tile) + line * plan.row_blocks,
                "stat": tile.buffer * plan.rows,
                "mult": c.qk_multiplier,
                "pre": c.qk_shift,
                "shift": c.shift,
                "first": int(line == 0),
                "valid": plan.valid(line),
            }
            if plan.relative:
                values |= {
                    "rel": 1,
                    "rel_w": plan.vec_w,
                    "rel_w_row": plan.row_blocks,
                    "rel_h_row": 1,
                    "rel_h": self._vec_h(tile) + line // plan.config.dim * plan.rows,
                    "rel_h_lane": line % plan.config.dim,
                }
            entries.append(("logit", values))
        return entries

    def row_sums(self, tile: Tile, first: int, count: int) -> Entry:
        """Logarithms of the sums of some rows."""
        plan = self.plan
        return "expsum", {
            "rows": count,
            "blocks": plan.blocks,
            "lgt": self._lgt(tile) + first * plan.blocks,
            "lgt_row": plan.blocks,
            "stat": tile.buffer * plan.rows + first,
        }

    def probabilities(self, tile: Tile | None, chunk: int) -> list[Entry]:
        """Codes of the probabilities of a chunk."""
        plan = self.plan
        if tile is None:
            return []
        first, lines = self._lines(chunk)
        dst = plan.prob_at + self._prob * plan.chunk_blocks * plan.rows
        self._prob = (self._prob + 1) % plan.prob_slots
        self._places[tile, chunk] = dst
        return [
            (
                "prob",
                {
                    "rows": plan.rows,
                    "blocks": lines * plan.row_blocks,
                    "lgt": self._lgt(tile) + first * plan.row_blocks,
                    "lgt_row": plan.blocks,
                    "stat": tile.buffer * plan.rows,
                    "dst": dst,
                    "dst_block": plan.rows,
                },
            )
        ]

    def sums(self, tile: Tile | None, chunk: int) -> Step:
        """Products of the probabilities of a chunk with its values."""
        plan = self.plan
        if tile is None:
            return Step(None, [])
        load, at, lines = self._chunk("v", tile, chunk)
        return Step(
            load,
            [
                (
                    "gemm",
                    {
                        "rows": plan.rows,
                        "steps": lines * plan.row_blocks,
                        "blocks": plan.parts,
                        "act_stride": plan.rows,
                        "act": self._places.pop((tile, chunk)),
                        "wgt": at,
                        "wgt_stride": plan.config.dim,
                        "wgt_block": plan.chunk_keys,
                        "zero": plan.constants.v_zero,
                        "acc": self._sums(tile),
                        "acc_block": plan.rows,
                        "decode": PROBABILITIES,
                        "accumulate": int(chunk > 0),
                    },
                )
            ],
        )

    def finish(self, tile: Tile | None) -> list[Entry]:
        """Sums of a tile to memory."""
        plan = self.plan
        entries: list[Entry] = []
        if tile is None:
            return entries
        dim = plan.config.dim
        for part in range(plan.parts):
            out = plan.vec_out + part * plan.rows
            entries.append(self._scale(self._sums(tile) + part * plan.rows, out, _SUMS, 0))
            entries.append(
                (
                    "store",
                    {
                        "memory": "vec",
                        "rows": 1,
                        "length": plan.rows * dim // 2,
                        "sp": out,
                        "address": plan.at["sums"] + self._place(tile, part) * dim * 4,
                    },
                )
            )
        return entries

    def _chunk(self, name: str, tile: Tile, chunk: int) -> tuple[Entry, int, int]:
        """LOAD of a chunk of keys or values into the next buffer; where it lies; its picture rows."""
        plan = self.plan
        first, lines = self._lines(chunk)
        word = plan.config.dim // 2
        at = plan.ring + self._ring * plan.parts * plan.chunk_keys
        self._ring = 1 - self._ring
        return (
            (
                "load",
                {
                    "memory": "wgt",
                    "rows": plan.parts,
                    "length": lines * plan.row_keys * word // 8,
                    "sp": at,
                    "sp_stride": plan.chunk_keys,
                    "stride": plan.keys * word,
                    "address": plan.at[name] + (tile.head * plan.parts * plan.keys + first * plan.row_keys) * word,
                },
            ),
            at,
            lines,
        )

    def _lines(self, chunk: int) -> tuple[int, int]:
        first = chunk * self.plan.chunk_rows
        return first, min(self.plan.chunk_rows, self.plan.height - first)

    def _place(self, tile: Tile, part: int = 0) -> int:
        """Words of queries in memory in front of a tile."""
        return (tile.head * self.plan.parts + part) * self.plan.padded_queries + tile.index * self.plan.rows

    def _act(self, tile: Tile) -> int:
        return tile.number % self.plan.query_buffers * self.plan.parts * self.plan.rows

    def _vec_h(self, tile: Tile) -> int:
        return self.plan.vec_h + tile.number % self.plan.h_buffers * self.plan.h_blocks * self.plan.rows

    def _lgt(self, tile: Tile) -> int:
        return tile.number % self.plan.logit_buffers * self.plan.rows * self.plan.blocks

    def half(self, chunk: int) -> int:
        """Scores of chunks alternate between the halves of the accumulators; the last is in the first half."""
        return (self.plan.chunks - 1 - chunk) % 2

    def _acc(self, chunk: int) -> int:
        return self.half(chunk) * (self.plan.config.acc_depth // 2)

    def _sums(self, tile: Tile) -> int:
        """Where the sums of a tile lie in the accumulators."""
        return self.plan.acc_sums + tile.buffer * self.plan.parts * self.plan.rows
