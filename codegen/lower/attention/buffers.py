"""Tiles of queries, and the places of their data in the scratchpads (words)."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import AttentionPlan


@dataclass(frozen=True)
class QueryTile:
    """Queries of a program's tile.

    Attributes
    ----------
    head, index : int
        Head, and number of the tile in it.
    number : int
        Number of the tile in the program.
    """

    head: int
    index: int
    number: int

    @property
    def buffer(self) -> int:
        """Number of the buffer that it uses where there are two."""
        return self.number % 2


class Buffers:
    """Places of the data of tiles and chunks."""

    def __init__(self, plan: AttentionPlan) -> None:
        self.plan = plan

    def query_words(self, tile: QueryTile) -> int:
        """Return the number of words of queries in external memory in front of a tile's first block."""
        return tile.head * self.plan.channel_blocks * self.plan.padded_queries + tile.index * self.plan.rows

    def result_words(self, tile: QueryTile, block: int) -> int:
        """Return the number of words of results in external memory in front of a block of a tile."""
        rows = (tile.head * self.plan.result_blocks + block) * self.plan.padded_queries
        return rows + tile.index * self.plan.rows

    def queries(self, tile: QueryTile) -> int:
        """Return the place of a tile's queries in ``act``."""
        return tile.number % self.plan.query_buffers * self.plan.channel_blocks * self.plan.rows

    def heights(self, tile: QueryTile) -> int:
        """Return the place of a tile's height terms in ``vec``."""
        return self.plan.vec_h + tile.number % self.plan.h_buffers * self.plan.h_blocks * self.plan.rows

    def logits(self, tile: QueryTile) -> int:
        """Return the place of a tile's logits in ``lgt``."""
        return tile.number % self.plan.logit_buffers * self.plan.rows * self.plan.blocks

    def statistics(self, tile: QueryTile) -> int:
        """Return the place of a tile's row maxima in ``stat``."""
        return tile.buffer * self.plan.rows

    def sums(self, tile: QueryTile) -> int:
        """Return the place of a tile's sums of values in the accumulators."""
        return self.plan.acc_sums + tile.buffer * self.plan.result_blocks * self.plan.rows

    def scores(self, chunk: int) -> int:
        """Return the place of a chunk's scores in the accumulators."""
        return self.half(chunk) * (self.plan.config.acc_depth // 2)

    def half(self, chunk: int) -> int:
        """Return the half of the accumulators for the scores of a chunk: they alternate, the last is in the first."""
        return (self.plan.chunks - 1 - chunk) % 2

    def lines(self, chunk: int) -> tuple[int, int]:
        """Return the first line of keys of a chunk, and the number of its lines."""
        first = chunk * self.plan.chunk_rows
        return first, min(self.plan.chunk_rows, self.plan.height - first)
