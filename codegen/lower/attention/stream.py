"""The order of a streamed attention's instructions, which keeps the array busy.

Keys and values are streamed. The array multiplies a tile of queries with one chunk of keys after the other, and the
vector unit turns the sums into logits. Then it turns these chunk by chunk into probabilities, which meet the values,
and the logits of the next tile take their place. :mod:`.writer` has the instructions of each part, :mod:`.plan` sizes
and places.
"""

from __future__ import annotations

from tvm_ahcq.codegen.isa.generated.isa import Gemm, Instruction

from .addresses import AttentionAddresses
from .buffers import QueryTile
from .plan import AttentionPlan
from .writer import Step, Writer


def stream_instructions(plan: AttentionPlan, addresses: AttentionAddresses) -> list[Instruction]:
    """Return the instructions of all heads, without tokens.

    Parameters
    ----------
    plan : AttentionPlan
        Sizes, and places in the scratchpads.
    addresses : AttentionAddresses
        Places in external memory.
    """
    starts = [(head, index) for head in range(plan.stage.heads) for index in range(plan.tiles)]
    every = _Tiles([QueryTile(head, index, number) for number, (head, index) in enumerate(starts)])
    writer = Writer(plan, addresses)
    steps = [Step(None, [*writer.tables(), *writer.queries(every[0])])]
    if plan.chunks > 1:
        for number in range(-1, len(starts) + 1):
            steps += _in_chunks(writer, every, number)
        return _in_order(steps)
    relative = writer.relative
    steps.append(Step(None, [*writer.queries(every[1]), *relative.heights(every[0]), *relative.widths(every[0])]))
    steps.append(Step(None, [*writer.queries(every[2]), *relative.widths(every[1]), *relative.windows(every[0])]))
    writer.upcoming = writer.scores(every[0], 0)
    steps.append(Step(None, writer.upcoming.loads()))
    for number in range(len(starts) + 2):
        steps += _whole(writer, every, number)
    return _in_order(steps)


class _Tiles:
    """Tiles by number; None before the first and after the last."""

    def __init__(self, tiles: list[QueryTile]) -> None:
        self._tiles = tiles

    def __getitem__(self, number: int) -> QueryTile | None:
        return self._tiles[number] if 0 <= number < len(self._tiles) else None


def _in_order(steps: list[Step]) -> list[Instruction]:
    """Instructions of the steps, each chunk loaded before what works on the one before it."""
    loads = [load for step in steps for load in step.loads()]
    instructions, done = loads[:1], 1
    for step in steps:
        if step.load is not None:
            instructions += loads[done : done + 1]
            done += 1
        instructions += step.instructions
    return instructions


def _whole(writer: Writer, tiles: _Tiles, number: int) -> list[Step]:
    """One tile after the other, all keys at a time.

    The array: width terms of the tile after next and height terms of the next, scores of this one, sums of the one
    before. The vector unit follows half a tile behind. Loads stand where nothing that waits is in front of them.
    """
    now, before = tiles[number], tiles[number - 1]
    scores, codes, sums = writer.upcoming, writer.probabilities(before, 0), writer.sums(before, 0)
    writer.upcoming = writer.scores(tiles[number + 1], 0)
    widths, heights = writer.relative.widths(tiles[number + 2]), writer.relative.heights(tiles[number + 1])
    return [
        Step(
            None,
            [
                *(each for each in widths + heights if isinstance(each, Gemm)),
                *scores.instructions,
                *sums.loads(),
                *(each for each in widths + heights if not isinstance(each, Gemm)),
                *writer.finish(tiles[number - 2]),
                *codes,
                *sums.instructions,
                *writer.queries(tiles[number + 3]),
                *writer.upcoming.loads(),
                *writer.logits(now, 0),
                *writer.relative.windows(tiles[number + 1]),
            ],
        )
    ]


def _spread(work: list[Step], instructions: list[Instruction]) -> list[Step]:
    """Return work of the array with instructions of other units in equal parts between, so that no queue is full."""
    ends = [(index + 1) * len(instructions) // len(work) for index in range(len(work))]
    parts = [Step(None, instructions[first:end]) for first, end in zip([0, *ends], ends, strict=False)]
    return [step for pair in zip(work, parts, strict=True) for step in pair]


def _in_chunks(writer: Writer, tiles: _Tiles, number: int) -> list[Step]:
    """Probabilities of one tile chunk by chunk, each followed by the logits of the next tile, which take their place.

    First come the last logits and the first probabilities, while the array multiplies the last probabilities of the
    tile before with their values, which have waited for this.
    """
    plan, steps = writer.plan, []
    now, before, after = (tiles[number + shift] for shift in (0, -1, 1))
    late = plan.chunks - plan.lag
    relative = [*writer.relative.widths(after), *writer.relative.heights(after)]
    work = [Step(None, [each for each in relative if isinstance(each, Gemm)])]
    work += [*(writer.sums(before, chunk) for chunk in range(late, plan.chunks)), writer.scores(after, 0)]
    follows = [*writer.logits(now, plan.chunks - 1), *(each for each in relative if not isinstance(each, Gemm))]
    # scores of the last chunk are in the first half until their logits are there
    soon = len(work) if writer.buffers.half(0) else len(work) - 1
    steps += [*_spread(work[:soon], [*follows, *writer.probabilities(now, 0)]), *work[soon:]]
    steps.append(Step(None, [*writer.finish(before), *writer.queries(tiles[number + 2])]))
    # sums are written to the second half of the accumulators: meanwhile logits come from the first
    turns = [chunk for chunk in range(plan.chunks) if writer.buffers.half(chunk) == 0]
    done = 0
    for chunk in range(plan.chunks):
        steps.append(Step(None, writer.probabilities(now, chunk) if chunk else writer.relative.windows(after)))
        if chunk + 1 < plan.chunks:
            steps.append(writer.scores(after, chunk + 1))
        if chunk in turns:
            due = (turns.index(chunk) + 1) * late // len(turns)
            steps += [writer.sums(now, other) for other in range(done, due)]
            done = due
        if chunk + 1 < plan.chunks:
            steps.append(Step(None, writer.logits(after, chunk)))
    return steps
