"""Heads of any size, with relative positions, as a program that keeps the array busy.

Keys and values are streamed. The array multiplies a tile of queries with one chunk of keys after the other, and the
vector unit turns the sums into logits. Then it turns these chunk by chunk into probabilities, which meet the values,
and the logits of the next tile take their place. See :mod:`.attention_plan` for sizes and places.

Relative positions are products of the queries with a table of int8, held in two halves like keys. All queries of a
segment have one height: their height terms are a stretch of the table. Width terms differ from query to query: those of
every distance go to memory and come back with a pitch one number short, which slides each query's window into place.
"""

from __future__ import annotations

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import Entry
from tvm_ahcq.errors import DeviceError

from .plan import AttentionStage, Plan, sides_of
from .writer import Step, Tile, Writer, tables


def stream_entries(plan: Plan) -> list[Entry]:
    """Instructions of the heads, without tokens.

    Parameters
    ----------
    plan : Plan
        Whose tables are placed; its ``at`` also has the addresses of the codes of queries ("q") ``(heads, d / Dim,
        padded queries, Dim)``, of keys and values ("k", "v") in the order of :meth:`Plan.key_rows`, and of the sums
        ("sums"), int32 in the order of the queries.
    """
    starts = [(head, index) for head in range(plan.stage.heads) for index in range(plan.tiles)]
    every = _Tiles([Tile(head, index, number) for number, (head, index) in enumerate(starts)])
    writer = Writer(plan)
    steps = [Step(None, [*tables(plan), *writer.queries(every[0])])]
    if plan.chunks > 1:
        for number in range(-1, len(starts) + 1):
            steps += _in_chunks(writer, every, number)
        return _in_order(steps)
    steps.append(Step(None, [*writer.queries(every[1]), *writer.heights(every[0]), *writer.widths(every[0])]))
    steps.append(Step(None, [*writer.queries(every[2]), *writer.widths(every[1]), *writer.windows(every[0])]))
    writer.upcoming = writer.scores(every[0], 0)
    steps.append(Step(None, writer.upcoming.loads()))
    for number in range(len(starts) + 2):
        steps += _whole(writer, every, number)
    return _in_order(steps)


class _Tiles:
    """Tiles by number; None before the first and after the last."""

    def __init__(self, tiles: list[Tile]) -> None:
        self._tiles = tiles

    def __getitem__(self, number: int) -> Tile | None:
        return self._tiles[number] if 0 <= number < len(self._tiles) else None


def _in_order(steps: list[Step]) -> list[Entry]:
    """Instructions of the steps, each chunk loaded before what works on the one before it."""
    loads = [entry for step in steps for entry in step.loads()]
    entries, done = loads[:1], 1
    for step in steps:
        if step.load is not None:
            entries += loads[done : done + 1]
            done += 1
        entries += step.entries
    return entries


def largest_plan(config: Config, stage: AttentionStage) -> Plan:
    """The plan with the most queries in a tile, fewer where that gives no more tiles.

    Raises
    ------
    DeviceError
        If none fits; the message is that of the smallest.
    """
    refusal = DeviceError("There is at least one query.")
    for size in tile_sizes(config, stage):
        try:
            return Plan(config, stage, size)
        except DeviceError as error:
            refusal = error
    raise refusal


def tile_sizes(config: Config, stage: AttentionStage) -> list[int]:
    """Queries of a tile that are worth a try, the most first: whole picture rows, then parts that divide one."""
    height, width = sides_of(config, stage)
    if stage.rel_h is None:
        granule = max(1, 16 // config.dim)
        height, width = -(-stage.queries // granule), granule
    fewest = sorted({-(-height // lines) for lines in range(1, height + 1)})
    whole = [width * -(-height // tiles) for tiles in fewest]
    return whole + [part for part in range(width - 1, 0, -1) if stage.rel_h is not None and width % part == 0]


def _whole(writer: Writer, tiles: _Tiles, number: int) -> list[Step]:
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
    return [Step(None, [*entries, *writer.logits(now, 0), *writer.windows(tiles[number + 1])])]


def _in_chunks(writer: Writer, tiles: _Tiles, number: int) -> list[Step]:
    """Probabilities of one tile chunk by chunk, each followed by the logits of the next tile, which take their place.

    First come the row sums, while the array multiplies the last probabilities of the tile before with their values,
    which have waited for this.
    """
    plan, steps = writer.plan, []
    now, before, after = (tiles[number + shift] for shift in (0, -1, 1))
    late = plan.chunks - plan.lag
    groups = [writer.row_sums(now, *group) for group in writer.row_groups()] if now else []
    parts = max(1, plan.lag)
    for part in range(parts):
        if part < plan.lag:
            steps.append(writer.sums(before, late + part))
        if part == 0:
            steps.append(Step(None, writer.logits(now, plan.chunks - 1)))
        if part == parts - 1:
            steps.append(Step(None, [*writer.widths(after), *writer.heights(after)]))
        steps.append(Step(None, groups[part * len(groups) // parts : (part + 1) * len(groups) // parts]))
    steps.append(writer.scores(after, 0))
    steps.append(Step(None, [*writer.finish(before), *writer.queries(tiles[number + 2])]))
    # sums are written to the second half of the accumulators: meanwhile logits come from the first
    turns = [chunk for chunk in range(plan.chunks) if writer.half(chunk) == 0]
    taken = 0
    for chunk in range(plan.chunks):
        steps.append(Step(None, writer.probabilities(now, chunk)))
        if chunk == 0:
            steps.append(Step(None, writer.windows(after)))
        if chunk + 1 < plan.chunks:
            steps.append(writer.scores(after, chunk + 1))
        if chunk in turns:
            due = (turns.index(chunk) + 1) * late // len(turns)
            steps += [writer.sums(now, other) for other in range(taken, due)]
            taken = due
        if chunk + 1 < plan.chunks:
            steps.append(Step(None, writer.logits(after, chunk)))
    return steps
