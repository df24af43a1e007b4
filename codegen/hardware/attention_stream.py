"""Heads of any size, with relative positions, as a program that keeps the array busy.

Keys and values are streamed: of each tile of queries, the array multiplies one chunk of keys after the other while the
vector unit turns the sums before them into logits, and then, while it works on the logits of the next tile, those of
this one into probabilities, which meet the values chunk by chunk. See :mod:`.attention_plan` for sizes and places.

Relative positions are products of the queries with a table of int8, held in two halves like keys. All queries of a
segment have one height: their height terms are a stretch of the table. Width terms differ from query to query: those of
every distance go to memory and come back with a pitch one number short, which slides each query's window into place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import DeviceError
from .attention_plan import PROBABILITIES, QUERIES, QUERIES_HIGH, QUERY_BUFFERS, PictureHeads, Plan
from .config import Config
from .image import MemoryImage
from .schedule import Entry, synchronise

_SUMS, _HEIGHTS, _WIDTHS = range(3)
"""Words of scales in ``vec``."""


@dataclass(frozen=True)
class _Tile:
    """Queries of a head from `first` on; its number in the program."""

    head: int
    first: int
    number: int

    @property
    def buffer(self) -> int:
        """Which of two buffers it uses."""
        return self.number % 2


def stream_program(
    config: Config, image: MemoryImage, heads: PictureHeads, rows: int | None = None, tiles: int | None = None
) -> tuple[bytes, int]:
    """Program of the heads, and the address of its sums: int32 ``(heads, d / Dim, tokens, Dim)``.

    Parameters
    ----------
    config : Config
        Accelerator.
    image : MemoryImage
        Receives operands and results.
    heads : PictureHeads
        Inputs.
    rows : int, optional
        Queries of a tile: whole picture rows, or a part of one; by default the most that fit.
    tiles : int, optional
        Only so many tiles, for measurements; sums of the others stay 0.

    Raises
    ------
    DeviceError
        If a head does not fit the scratchpads.
    """
    plan = Plan(config, heads, rows) if rows else largest_plan(config, heads)
    plan.place(image)
    starts = [(head, first) for head in range(plan.count) for first in range(0, plan.tokens, plan.rows)][:tiles]
    every = _Tiles([_Tile(head, first, number) for number, (head, first) in enumerate(starts)])
    writer = _Writer(plan)
    steps = [_Step(None, [*_tables(plan), *writer.queries(every[0]), *writer.queries(every[1])])]
    steps.append(_Step(None, [*writer.heights(every[0]), *writer.widths(every[0])]))
    period = _whole if plan.chunks == 1 else _in_chunks
    if plan.chunks == 1:
        steps.append(_Step(None, [*writer.queries(every[2]), *writer.widths(every[1]), *writer.windows(every[0])]))
        writer.upcoming = writer.scores(every[0], 0)
        steps.append(_Step(None, writer.upcoming.loads()))
    for number in range(len(starts) + 2):
        steps += period(writer, every, number)
    return synchronise(_in_order(steps), config), plan.result


class _Tiles:
    """Tiles by number; None before the first and after the last."""

    def __init__(self, tiles: list[_Tile]) -> None:
        self._tiles = tiles

    def __getitem__(self, number: int) -> _Tile | None:
        return self._tiles[number] if 0 <= number < len(self._tiles) else None


@dataclass
class _Step:
    """What the array does at a time: the chunk of keys or values that it needs, and instructions."""

    load: Entry | None
    entries: list[Entry]

    def loads(self) -> list[Entry]:
        """Its LOAD, if it has one."""
        return [self.load] if self.load else []


def _in_order(steps: list[_Step]) -> list[Entry]:
    """Instructions of the steps, each chunk loaded before what works on the one before it."""
    loads = [entry for step in steps for entry in step.loads()]
    entries, done = loads[:1], 1
    for step in steps:
        if step.load is not None:
            entries += loads[done : done + 1]
            done += 1
        entries += step.entries
    return entries


def largest_plan(config: Config, heads: PictureHeads) -> Plan:
    """The plan with the most queries in a tile.

    Raises
    ------
    DeviceError
        If none fits; the message is that of the smallest.
    """
    height, width = heads.sides
    sizes = [width * lines for lines in range(height, 0, -1)] + [part for part in range(width - 1, 0, -1)]
    refusal = DeviceError("A picture has at least one query.")
    for rows in sizes:
        if height * width % rows or (rows < width and width % rows):
            continue
        try:
            return Plan(config, heads, rows)
        except DeviceError as error:
            refusal = error
    raise refusal


def _whole(writer: _Writer, tiles: _Tiles, number: int) -> list[_Step]:
    """One tile after the other, all keys at a time.

    The array: width terms of the tile after next and height terms of the next, scores of this one, sums of the one
    before. The vector unit follows half a tile behind. Loads stand where nothing that waits is in front of them.
    """
    now, before = tiles[number], tiles[number - 1]
    groups = [writer.row_sums(before, *group) for group in writer.row_groups()] if before else []
    scores, codes, sums = writer.upcoming, writer.probabilities(before, 0), writer.sums(before, 0)
    writer.upcoming = writer.scores(tiles[number + 1], 0)
    widths, heights = writer.widths(tiles[number + 2]), writer.heights(tiles[number + 1])
    first = [entry for entry in widths + heights if entry[0] == "gemm"]
    then = [entry for entry in widths + heights if entry[0] != "gemm"]
    entries = [*first, *scores.entries, *sums.loads(), *groups, *then, *writer.finish(tiles[number - 2]), *codes]
    entries += [*sums.entries, *writer.queries(tiles[number + 3]), *writer.upcoming.loads()]
    return [_Step(None, [*entries, *writer.logits(now, 0), *writer.windows(tiles[number + 1])])]


def _in_chunks(writer: _Writer, tiles: _Tiles, number: int) -> list[_Step]:
    """Scores of one tile chunk by chunk, meanwhile row sums of the tile before; then probabilities and sums of that.

    The last chunks of its sums come a tile later, to give the array work while the vector unit takes row sums.
    """
    plan, steps = writer.plan, []
    now, before, last, after = (tiles[number + shift] for shift in (0, -1, -2, 1))
    late = plan.chunks - plan.lag
    groups = [writer.row_sums(before, *group) for group in writer.row_groups()] if before else []
    waiting = writer.windows(now)
    taken = 0
    for chunk in range(plan.chunks):
        steps.append(writer.scores(now, chunk))
        behind = (chunk + 1) * plan.lag // plan.chunks
        if behind > taken:
            steps.append(writer.sums(last, late + taken))
            taken = behind
        share = groups[chunk * len(groups) // plan.chunks : (chunk + 1) * len(groups) // plan.chunks]
        steps.append(_Step(None, [*waiting, *share]))
        waiting = writer.logits(now, chunk)
    for chunk in range(plan.chunks):
        steps.append(_Step(None, writer.probabilities(before, chunk)))
        if chunk < late:
            steps.append(writer.sums(before, chunk))
        if chunk == 0:
            steps.append(_Step(None, [*waiting, *writer.finish(last), *writer.queries(after)]))
        if chunk == 1:
            steps.append(_Step(None, [*writer.widths(after), *writer.heights(after)]))
    return steps


def _tables(plan: Plan) -> list[Entry]:
    entries: list[Entry] = [
        ("load", {"memory": "decode", "rows": 1, "length": 24, "address": plan.at["decode"]}),
        ("load", {"memory": "encode", "rows": 1, "length": 32, "address": plan.at["encode"]}),
        ("load", {"memory": "vec", "rows": 1, "length": 3 * plan.config.dim // 2, "address": plan.at["scales"]}),
    ]  # fmt: skip
    if plan.relative:
        for name, at, size in zip("hw", plan.rel_wgt, plan.entries, strict=True):
            chunks = 2 * plan.parts * size * plan.config.dim // 16
            entries.append(("load", {
                "memory": "wgt", "rows": 1, "length": chunks, "sp": at, "address": plan.at[name],
            }))  # fmt: skip
    return entries


class _Writer:
    """Instructions of the parts of a period, and which buffers come next."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._ring = 0
        self._prob = 0
        self.upcoming = _Step(None, [])  # scores of the next tile, where their keys are loaded long before
        self._places: dict[tuple[_Tile, int], int] = {}  # of probabilities that wait for their values

    def row_groups(self) -> list[tuple[int, int]]:
        """Rows (first, count) whose sums are taken at a time: in pieces where logits come in pieces too."""
        rows = self.plan.rows
        count = rows if self.plan.chunks == 1 else max(1, rows // (self.plan.chunks // 2 or 1))
        return [(first, min(count, rows - first)) for first in range(0, rows, count)]

    def queries(self, tile: _Tile | None) -> list[Entry]:
        """Queries of a tile."""
        plan = self.plan
        if tile is None:
            return []
        word = plan.config.dim // 2
        return [("load", {
            "memory": "act", "rows": plan.parts, "length": plan.rows * word // 8, "sp": self._act(tile),
            "sp_stride": plan.rows, "stride": plan.tokens * word,
            "address": plan.at["q"] + (tile.head * plan.parts * plan.tokens + tile.first) * word,
        })]  # fmt: skip

    def widths(self, tile: _Tile | None) -> list[Entry]:
        """Width terms of every distance, to memory."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        acc = plan.acc_relative + plan.h_blocks * plan.rows
        entries: list[Entry] = []
        x, count = plan.segments(tile.first)[0].x, min(plan.rows, plan.width)  # the same of every segment
        entries += self._products(self._act(tile), plan.rows, 1, plan.width - x - count, acc)
        for block in range(plan.w_blocks):
            far = plan.vec_far + block * plan.rows
            entries.append(self._scale(acc + block * plan.rows, far, _WIDTHS, plan.heads.constants.rel_shift))
            entries.append(("store", {
                "memory": "vec", "rows": plan.rows, "length": plan.config.dim // 2, "sp_stride": 1, "sp": far,
                "stride": plan.rel_pitch, "address": plan.rel_buffers[tile.buffer] + 4 * block * plan.config.dim,
            }))  # fmt: skip
        return entries

    def heights(self, tile: _Tile | None) -> list[Entry]:
        """Height terms of a tile's queries, to ``vec``."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        acc = plan.acc_relative
        entries: list[Entry] = []
        for segment in plan.segments(tile.first):
            act = self._act(tile) + segment.at
            entries += self._products(act, segment.count, 0, plan.height - 1 - segment.y, acc + segment.at)
        for block in range(plan.h_blocks):
            near = self._vec_h(tile) + block * plan.rows
            entries.append(self._scale(acc + block * plan.rows, near, _HEIGHTS, plan.heads.constants.rel_shift))
        return entries

    def _scale(self, acc: int, dst: int, mult: int, pre: int) -> Entry:
        """One column block of a tile, to ``vec``."""
        return "scale", {
            "memory": "vec", "rows": self.plan.rows, "blocks": 1, "acc": acc, "dst": dst, "mult": mult, "pre": pre,
        }  # fmt: skip

    def _products(self, act: int, rows: int, table: int, offset: int, acc: int) -> list[Entry]:
        """Queries times both halves of a stretch of a table of relative positions."""
        plan = self.plan
        size = plan.entries[table]
        return [("gemm", {
            "rows": rows, "steps": plan.parts, "blocks": (plan.h_blocks, plan.w_blocks)[table], "act": act,
            "act_stride": plan.rows, "wgt": plan.rel_wgt[table] + plane * plan.parts * size + offset,
            "wgt_stride": size, "wgt_block": plan.config.dim, "zero": (8, 0)[plane], "transpose": 1, "acc": acc,
            "acc_block": plan.rows, "decode": (QUERIES_HIGH, QUERIES)[plane], "accumulate": plane,
        }) for plane in range(2)]  # fmt: skip

    def windows(self, tile: _Tile | None) -> list[Entry]:
        """Width terms of a tile back from memory, each query's window."""
        plan = self.plan
        if tile is None or not plan.relative:
            return []
        return [("load", {
            "memory": "vec", "rows": segment.count, "length": plan.row_keys // 2, "sp_stride": plan.row_blocks,
            "sp": plan.vec_w + segment.at * plan.row_blocks, "stride": plan.rel_pitch - 4,
            "address": plan.rel_buffers[tile.buffer] + segment.at * plan.rel_pitch + 4 * (segment.count - 1),
        }) for segment in plan.segments(tile.first)]  # fmt: skip

    def scores(self, tile: _Tile | None, chunk: int) -> _Step:
        """Products of a tile's queries with the keys of a chunk."""
        plan = self.plan
        if tile is None:
            return _Step(None, [])
        load, at, lines = self._chunk("k", tile, chunk)
        return _Step(load, [("gemm", {
            "rows": plan.rows, "steps": plan.parts, "blocks": lines * plan.row_blocks, "act": self._act(tile),
            "act_stride": plan.rows, "wgt": at, "wgt_stride": plan.chunk_keys, "wgt_block": plan.config.dim,
            "zero": plan.heads.constants.k_zero, "transpose": 1, "acc": self._acc(chunk), "acc_block": plan.rows,
            "decode": QUERIES,
        })])  # fmt: skip

    def logits(self, tile: _Tile | None, chunk: int) -> list[Entry]:
        """Logits of a chunk, one picture row of keys at a time."""
        plan, c = self.plan, self.plan.heads.constants
        if tile is None:
            return []
        first, lines = self._lines(chunk)
        entries: list[Entry] = []
        for line in range(first, first + lines):
            values: dict[str, Any] = {
                "rows": plan.rows, "blocks": plan.row_blocks, "acc_block": plan.rows, "lgt_row": plan.blocks,
                "acc": self._acc(chunk) + (line - first) * plan.row_blocks * plan.rows,
                "lgt": self._lgt(tile) + line * plan.row_blocks, "stat": tile.buffer * plan.rows,
                "mult": c.qk_multiplier, "pre": c.qk_shift, "shift": c.shift, "first": int(line == 0),
                "valid": plan.width - (plan.row_blocks - 1) * plan.config.dim,
            }  # fmt: skip
            if plan.relative:
                values |= {
                    "rel": 1, "rel_w": plan.vec_w, "rel_w_row": plan.row_blocks, "rel_h_row": 1,
                    "rel_h": self._vec_h(tile) + line // plan.config.dim * plan.rows,
                    "rel_h_lane": line % plan.config.dim,
                }  # fmt: skip
            entries.append(("logit", values))
        return entries

    def row_sums(self, tile: _Tile, first: int, count: int) -> Entry:
        """Logarithms of the sums of some rows."""
        plan = self.plan
        return "expsum", {
            "rows": count, "blocks": plan.blocks, "lgt": self._lgt(tile) + first * plan.blocks,
            "lgt_row": plan.blocks, "stat": tile.buffer * plan.rows + first,
        }  # fmt: skip

    def probabilities(self, tile: _Tile | None, chunk: int) -> list[Entry]:
        """Codes of the probabilities of a chunk."""
        plan = self.plan
        if tile is None:
            return []
        first, lines = self._lines(chunk)
        dst = plan.prob_at + self._prob * plan.chunk_blocks * plan.rows
        self._prob = (self._prob + 1) % plan.prob_slots
        self._places[tile, chunk] = dst
        return [("prob", {
            "rows": plan.rows, "blocks": lines * plan.row_blocks, "lgt": self._lgt(tile) + first * plan.row_blocks,
            "lgt_row": plan.blocks, "stat": tile.buffer * plan.rows, "dst": dst, "dst_block": plan.rows,
        })]  # fmt: skip

    def sums(self, tile: _Tile | None, chunk: int) -> _Step:
        """Products of the probabilities of a chunk with its values."""
        plan = self.plan
        if tile is None:
            return _Step(None, [])
        load, at, lines = self._chunk("v", tile, chunk)
        return _Step(load, [("gemm", {
            "rows": plan.rows, "steps": lines * plan.row_blocks, "blocks": plan.parts, "act_stride": plan.rows,
            "act": self._places.pop((tile, chunk)), "wgt": at, "wgt_stride": plan.config.dim,
            "wgt_block": plan.chunk_keys, "zero": plan.heads.constants.v_zero, "acc": self._sums(tile),
            "acc_block": plan.rows, "decode": PROBABILITIES, "accumulate": int(chunk > 0),
        })])  # fmt: skip

    def finish(self, tile: _Tile | None) -> list[Entry]:
        """Sums of a tile to memory."""
        plan = self.plan
        entries: list[Entry] = []
        if tile is None:
            return entries
        dim = plan.config.dim
        for part in range(plan.parts):
            out = plan.vec_out + part * plan.rows
            entries.append(self._scale(self._sums(tile) + part * plan.rows, out, _SUMS, 0))
            entries.append(("store", {
                "memory": "vec", "rows": 1, "length": plan.rows * dim // 2, "sp": out,
                "address": plan.result + ((tile.head * plan.parts + part) * plan.tokens + tile.first) * dim * 4,
            }))  # fmt: skip
        return entries

    def _chunk(self, name: str, tile: _Tile, chunk: int) -> tuple[Entry, int, int]:
        """LOAD of a chunk of keys or values into the next buffer; where it lies; its picture rows."""
        plan = self.plan
        first, lines = self._lines(chunk)
        word = plan.config.dim // 2
        at = plan.ring + self._ring * plan.parts * plan.chunk_keys
        self._ring = 1 - self._ring
        return ("load", {
            "memory": "wgt", "rows": plan.parts, "length": lines * plan.row_keys * word // 8, "sp": at,
            "sp_stride": plan.chunk_keys, "stride": plan.keys * word,
            "address": plan.at[name] + (tile.head * plan.parts * plan.keys + first * plan.row_keys) * word,
        }), at, lines  # fmt: skip

    def _lines(self, chunk: int) -> tuple[int, int]:
        first = chunk * self.plan.chunk_rows
        return first, min(self.plan.chunk_rows, self.plan.height - first)

    def _act(self, tile: _Tile) -> int:
        return tile.number % QUERY_BUFFERS * self.plan.parts * self.plan.rows

    def _vec_h(self, tile: _Tile) -> int:
        return self.plan.vec_h + tile.number % self.plan.h_buffers * self.plan.h_blocks * self.plan.rows

    def _lgt(self, tile: _Tile) -> int:
        return tile.buffer * self.plan.rows * self.plan.blocks

    def _acc(self, chunk: int) -> int:
        """Scores of chunks alternate between the halves of the accumulators; the last is in the first half."""
        return (self.plan.chunks - 1 - chunk) % 2 * (self.plan.config.acc_depth // 2)

    def _sums(self, tile: _Tile) -> int:
        """Where the sums of a tile lie in the accumulators."""
        return self.plan.acc_sums + tile.buffer * self.plan.parts * self.plan.rows
