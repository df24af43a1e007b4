"""Sizes of a streamed attention, and places of its data in the scratchpads.

Keys come in *lines*: with relative positions one picture row each, padded to whole blocks of Dim; without, some blocks.
Queries are taken in tiles: some picture rows, or a part of one (*segments* of queries with the same height), padded to
what DMA takes. Keys and values come in *chunks* of some lines. Channels are padded to whole blocks of Dim.

Results have a column behind the channels, the sums of the rows' operands. It lies in the last block of the channels
where that has padding, whose first column has values of 1; else in a block of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.generated.isa import LIMITS, Load
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import AttentionConstants

QUERIES, PROBABILITIES, QUERIES_HIGH = range(3)
"""Decode tables; the third is 16 times the first, for the high half of an int8 weight."""

SCALES = 4
SUM_SCALE, HEIGHT_SCALE, WIDTH_SCALE, MINUS_SCALE = range(SCALES)
"""Words of scales in ``vec``."""

_LINE = 4
"""Most key blocks of a line where there is no picture."""

_LONGEST = (1 << Load.layout["length"].width) - 1
"""Most chunks of a row of LOAD or STORE."""


@dataclass(frozen=True, eq=False)
class AttentionStage:
    """Heads with the same constants, but for their codes.

    Attributes
    ----------
    heads, queries, keys, channels : int
        Sizes; queries equal to keys where there are relative positions.
    constants : AttentionConstants
        Of the site.
    rel_h, rel_w : numpy.ndarray or None
        ``(2 height - 1, channels)`` and ``(2 width - 1, channels)`` int8, of all heads; both or neither.
    """

    heads: int
    queries: int
    keys: int
    channels: int
    constants: AttentionConstants
    rel_h: np.ndarray | None = None
    rel_w: np.ndarray | None = None


@dataclass(frozen=True)
class Segment:
    """Queries of a tile with the same height: `count` from column `x` on, at row `at` of the tile."""

    at: int
    count: int
    y: int
    x: int


class AttentionPlan:
    """Sizes of a call, and places in the scratchpads (words).

    Parameters
    ----------
    config : Config
        Accelerator.
    stage : AttentionStage
        Heads.
    queries : int
        Of a tile.
    lines : int, optional
        Of keys, in a chunk; by default the most that fit.
    lag : int, optional
        Chunks whose values are multiplied while the next tile's last logits and first probabilities are computed, to
        give the array work; by default half of them, where their probabilities fit ``act``.

    Raises
    ------
    DeviceError
        If a head does not fit the scratchpads, whose names the message gives.
    """

    def __init__(
        self, config: Config, stage: AttentionStage, queries: int, lines: int | None = None, lag: int | None = None
    ) -> None:
        self.config, self.stage, self.tile_queries = config, stage, queries
        self.constants = stage.constants
        dim = config.dim
        granule = max(1, 16 // dim)
        self.rows = -(-queries // granule) * granule
        self.tiles = -(-stage.queries // queries)
        self.padded_queries = self.tiles * self.rows
        self.channel_blocks, self.result_blocks = -(-stage.channels // dim), stage.channels // dim + 1
        self.relative = stage.rel_h is not None and stage.rel_w is not None
        self.height, self.width = sides_of(config, stage)
        self.row_blocks = -(-self.width // dim)
        self.row_keys = self.row_blocks * dim
        self.keys, self.blocks = self.height * self.row_keys, self.height * self.row_blocks
        self._size_relative()
        self._size_chunks(lines, lag)
        self._place_vec()
        self._check()

    def _size_relative(self) -> None:
        """Blocks and entries of relative positions, and their places at the start of ``wgt``."""
        dim = self.config.dim
        segment = min(self.tile_queries, self.width)
        self.h_blocks = -(-self.height // dim) if self.relative else 0
        self.w_blocks = -(-(self.width + segment - 1) // dim) if self.relative else 0
        granule = max(1, 16 // dim)
        entries = [self.height - 1 + self.h_blocks * dim, self.width - segment + self.w_blocks * dim]
        self.entries = [-(-size // granule) * granule if self.relative else 0 for size in entries]
        self.rel_wgt = [0, 2 * self.channel_blocks * self.entries[0]]
        self.ring = 2 * self.channel_blocks * sum(self.entries)
        self.rel_pitch = 4 * self.w_blocks * dim

    def _size_chunks(self, lines: int | None, lag: int | None) -> None:
        """Lines of a chunk, and the places in ``acc`` and ``act`` that depend on them."""
        config, rows = self.config, self.rows
        # Keys of a chunk: two chunks behind the tables of relative positions. A single chunk has the first half of the
        # accumulators to itself; of several, each second is in the second half, and relative positions in the first.
        half, line = config.acc_depth // 2, self.row_blocks * rows
        sums, relative = 2 * self.result_blocks * rows, (self.h_blocks + self.w_blocks) * rows
        room = (config.wgt_depth - self.ring) // (2 * self.channel_blocks * self.row_keys)
        room = min(room, 16 * _LONGEST // (config.dim * self.row_keys))
        single = self.height <= room and self.height * line <= half and sums + relative <= half
        single = single and lines in (None, self.height)
        several = max(0, min(self.height - 1, room, max(0, half - max(sums, relative)) // line))
        if lines is None and several:
            # of one size: a short one would leave too little time to load a long one; and of even number, so that sums
            # of values fall to chunks whose scores are in the other half
            lines = -(-self.height // (2 * -(-self.height // (2 * several))))
        self.chunk_rows = self.height if single else lines if lines is not None and lines <= several else 0
        self.acc_sums = 2 * half - sums
        self.acc_relative = (self.acc_sums if single else half) - relative
        self.chunks = -(-self.height // self.chunk_rows) if self.chunk_rows else 0
        self.query_buffers, self.logit_buffers = (3, 2) if self.chunks == 1 else (2, 1)
        self.chunk_keys, self.chunk_blocks = self.chunk_rows * self.row_keys, self.chunk_rows * self.row_blocks
        queries = self.query_buffers * self.channel_blocks * rows
        self.prob_slots = (config.act_depth - queries) // max(1, self.chunk_blocks * rows)
        self.prob_at = queries
        self.most_lag = max(0, min(self.chunks - 1, self.prob_slots - 2))
        self.lag = min(self.chunks // 2, self.most_lag) if lag is None else lag

    def _place_vec(self) -> None:
        """Words of scales; height terms, width terms; results on their way to memory.

        Width terms on their way to memory lie behind the results; where there is no room, in the place of the last.
        """
        config, rows = self.config, self.rows
        self.vec_h = SCALES
        self.h_buffers = 2 if self.chunks == 1 else 1
        self.vec_w = self.vec_h + self.h_buffers * self.h_blocks * rows
        self.vec_out = self.vec_w + (self.row_blocks * rows if self.relative else 0)
        self.vec_far = min(self.vec_out + self.result_blocks * rows, config.vec_depth - self.w_blocks * rows)
        self.vec_end = self.vec_out + max(self.result_blocks, self.w_blocks) * rows

    def _check(self) -> None:
        config, rows = self.config, self.rows
        fits = {
            "wgt and acc": self.chunk_rows >= 1,
            "a row of a store": rows * config.dim // 2 <= _LONGEST,
            "act": self.prob_slots >= 2 and 0 <= self.lag <= self.most_lag,
            "stat": 2 * rows <= config.stat_depth,
            "lgt": self.logit_buffers * rows * self.blocks <= config.lgt_depth,
            "vec": self.vec_end <= config.vec_depth,
        }
        full = [name for name, fit in fits.items() if not fit]
        stage, limit = self.stage, 1 << (LIMITS["mantissa_bits"] - 1)
        c = self.constants
        if self.relative and not self.height * self.width == stage.queries == stage.keys:
            raise DeviceError(
                f"{stage.queries} queries and {stage.keys} keys do not tile a picture of {self.height} x {self.width}."
            )
        if max(map(abs, (c.qk_multiplier, c.rel_h_multiplier, c.rel_w_multiplier))) >= limit:
            raise DeviceError("a scale of the logits leaves the 22 bits of a multiplier")
        if self.relative and self.tile_queries % self.width and self.width % self.tile_queries:
            raise DeviceError(
                f"Tiles of {self.tile_queries} queries do not divide a picture of {self.height} x {self.width}."
            )
        if full:
            raise DeviceError(
                f"{stage.keys} keys of {stage.channels} channels, {self.tile_queries} queries at a time, do not fit "
                f"the scratchpads of {config.name}: {', '.join(full)}."
            )

    @property
    def one(self) -> int:
        """Code of a value whose weight is 1; -1 where codes end at their zero point."""
        zero = self.constants.v_zero
        return zero + 1 if zero + 1 < 1 << LIMITS["code_bits"] else zero - 1

    def query_rows(self) -> np.ndarray:
        """Return ``(padded queries,)`` int32: the query at each place, -1 for padding."""
        at = np.arange(self.rows)
        rows = self.tile_queries * np.arange(self.tiles)[:, None] + at
        return np.where((at < self.tile_queries) & (rows < self.stage.queries), rows, -1).ravel()

    def key_rows(self) -> np.ndarray:
        """Return ``(keys in memory,)`` int32: the key at each place, -1 for padding."""
        at = np.arange(self.row_keys)
        rows = self.width * np.arange(self.height)[:, None] + at
        return np.where((at < self.width) & (rows < self.stage.keys), rows, -1).ravel()

    def valid(self, line: int) -> int:
        """Return the number of real keys in the last block of a line."""
        return min(self.width, self.stage.keys - line * self.width) - (self.row_blocks - 1) * self.config.dim

    def segments(self, tile: int) -> list[Segment]:
        """Return the segments of a tile of a head, by its number."""
        first, count = tile * self.tile_queries, min(self.tile_queries, self.width)
        starts = range(first, min(first + self.tile_queries, self.stage.queries), count)
        return [Segment(at - first, count, at // self.width, at % self.width) for at in starts]


def sides_of(config: Config, stage: AttentionStage) -> tuple[int, int]:
    """Return the numbers of lines and of keys in a line: of the picture, or as many blocks as divide all."""
    if stage.rel_h is not None and stage.rel_w is not None:
        return (len(stage.rel_h) + 1) // 2, (len(stage.rel_w) + 1) // 2
    blocks = -(-stage.keys // config.dim)
    line = max(size for size in range(1, _LINE + 1) if blocks % size == 0)
    return blocks // line, line * config.dim


def largest_plan(config: Config, stage: AttentionStage) -> AttentionPlan:
    """Return the plan with the most queries in a tile, fewer where that gives no more tiles.

    Raises
    ------
    DeviceError
        If none fits; the message is that of the smallest.
    """
    refusal = DeviceError("There is at least one query.")
    for size in tile_sizes(config, stage):
        try:
            return AttentionPlan(config, stage, size)
        except DeviceError as error:
            refusal = error
    raise refusal


def tile_sizes(config: Config, stage: AttentionStage) -> list[int]:
    """Return sizes of a tile, in queries, that are worth a try: whole lines, the most first, then parts of one."""
    height, width = sides_of(config, stage)
    if stage.rel_h is None:
        granule = max(1, 16 // config.dim)
        height, width = -(-stage.queries // granule), granule
    fewest = sorted({-(-height // lines) for lines in range(1, height + 1)})
    whole = [width * -(-height // tiles) for tiles in fewest]
    return whole + [part for part in range(width - 1, 0, -1) if stage.rel_h is not None and width % part == 0]
