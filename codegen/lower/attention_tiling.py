"""Sizes of an attention's loops, and where its parts lie in the scratchpads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import DeviceError
from ...quantizers.reference import LogAttention
from ..hardware.config import Config
from ..hardware.generated.isa import LIMITS

CONSTANTS = 3
"""Words of ``vec`` with scales: 1, and those of relative positions."""

_PIECE = 4
"""Key blocks of a piece where no picture row says how many."""

ROWS = (64, 56, 48, 32, 16, 8)
"""Queries of a tile, the first that fits."""


@dataclass(frozen=True, eq=False)
class AttentionStage:
    """Heads with the same constants.

    Attributes
    ----------
    heads, queries, keys, channels : int
        Sizes; channels a multiple of Dim, queries equal to keys where there are relative positions.
    constants : LogAttention
        Of the site.
    rel_h, rel_w : numpy.ndarray or None
        ``(2 height - 1, channels)`` and ``(2 width - 1, channels)`` int8.
    """

    heads: int
    queries: int
    keys: int
    channels: int
    constants: LogAttention
    rel_h: np.ndarray | None = None
    rel_w: np.ndarray | None = None


@dataclass(frozen=True)
class AttentionTiling:
    """Sizes of the loops, and where the parts lie in the scratchpads (words)."""

    config: Config
    stage: AttentionStage
    rows: int

    @property
    def relative(self) -> bool:
        """Whether there are relative positions."""
        return self.stage.rel_h is not None and self.stage.rel_w is not None

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the picture of tokens."""
        assert self.stage.rel_h is not None and self.stage.rel_w is not None
        return (len(self.stage.rel_h) + 1) // 2, (len(self.stage.rel_w) + 1) // 2

    @property
    def parts(self) -> int:
        """Channel blocks of a head."""
        return self.stage.channels // self.config.dim

    @property
    def padded_queries(self) -> int:
        """Queries in memory: whole chunks for any Dim."""
        return -(-self.stage.queries // 8) * 8

    @cached_property
    def pieces(self) -> list[tuple[int, int, int]]:
        """First key block, blocks, and real keys of the last block."""
        dim = self.config.dim
        if self.relative:
            height, width = self.sides
            blocks = -(-width // dim)
            return [(row * blocks, blocks, width - (blocks - 1) * dim) for row in range(height)]
        total = -(-self.stage.keys // dim)
        last = self.stage.keys - (total - 1) * dim
        sizes = [(first, min(_PIECE, total - first)) for first in range(0, total, _PIECE)]
        return [(first, blocks, last if first + blocks == total else dim) for first, blocks in sizes]

    @property
    def key_blocks(self) -> int:
        """Key blocks of a head, padding included."""
        return self.pieces[-1][0] + self.pieces[-1][1]

    @property
    def padded_keys(self) -> int:
        """Keys in memory."""
        return self.key_blocks * self.config.dim

    def key_rows(self) -> np.ndarray:
        """``(padded keys,)`` int32: which key lies there, -1 for padding."""
        if not self.relative:
            return np.where(np.arange(self.padded_keys) < self.stage.keys, np.arange(self.padded_keys), -1)
        height, width = self.sides
        rows = np.full((height, self.padded_keys // height), -1)
        rows[:, :width] = np.arange(height * width).reshape(height, width)
        return rows.ravel()

    @property
    def distance_blocks(self) -> tuple[int, int]:
        """Column blocks of the two tables of relative positions."""
        height, width = self.sides
        return -(-(2 * height - 1) // self.config.dim), -(-(2 * width - 1) // self.config.dim)

    @property
    def table_words(self) -> int:
        """Words of ``wgt`` for both halves of both tables."""
        return 2 * sum(self.distance_blocks) * self.parts * self.config.dim if self.relative else 0

    @property
    def resident(self) -> int:
        """Heads whose keys and values ``wgt`` holds: 0 to 2."""
        return min(2, (self.config.wgt_depth - self.table_words) // (2 * self.parts * self.padded_keys))

    @property
    def windows(self) -> tuple[int, int]:
        """Words a query of its height and width terms."""
        height, width = self.sides if self.relative else (0, 0)
        return -(-height // self.config.dim), -(-width // self.config.dim)

    @property
    def vec_slots(self) -> int:
        """Column blocks of a tile behind constants and relative terms in ``vec``; more would need too many tokens."""
        return min(4, (self.config.vec_depth - CONSTANTS) // self.rows - sum(self.windows))

    @property
    def acc_slots(self) -> int:
        """Pieces of logits in ``acc`` behind the sums of the values."""
        largest = max(blocks for _, blocks, _ in self.pieces)
        return min(4, (self.config.acc_depth // self.rows - self.parts) // largest)

    @property
    def act_slot(self) -> int:
        """Key blocks of probabilities in each of the two places in ``act``."""
        return (self.config.act_depth // self.rows - 2 * self.parts) // 2

    @property
    def stream_slot(self) -> int:
        """Key blocks of each of two pieces in ``wgt`` where a head does not stay there."""
        return (self.config.wgt_depth - self.table_words) // (2 * self.parts * self.config.dim)

    @property
    def fits(self) -> bool:
        """Whether the scratchpads hold it all."""
        largest = max(blocks for _, blocks, _ in self.pieces)
        return (
            self.rows <= self.config.stat_depth
            and self.rows * self.key_blocks <= self.config.lgt_depth
            and self.vec_slots >= 1
            and self.acc_slots >= 1
            and self.act_slot >= 1
            and (not self.relative or (sum(self.distance_blocks) > 0 and self.table_words < self.config.wgt_depth))
            and (self.resident > 0 or self.stream_slot >= largest)
        )


def choose_attention_tiling(config: Config, stage: AttentionStage) -> AttentionTiling:
    """The default sizes: the longest tile of queries that fits.

    Raises
    ------
    DeviceError
        If the attention does not fit the accelerator.
    """
    if stage.channels % config.dim:
        raise DeviceError(f"{stage.channels} channels a head; the array of {config.name} needs multiples of "
                          f"{config.dim}")  # fmt: skip
    c, limit = stage.constants, 1 << (LIMITS["mantissa_bits"] - 1)
    if max(map(abs, (c.qk_multiplier, c.rel_h_multiplier, c.rel_w_multiplier))) >= limit:
        raise DeviceError("a scale of the logits leaves the 22 bits of a multiplier")
    for rows in ROWS:
        tiling = AttentionTiling(config, stage, min(rows, -(-stage.queries // 8) * 8))
        if tiling.fits:
            return tiling
    raise DeviceError(f"{stage.keys} keys of {stage.channels} channels do not fit the scratchpads of {config.name}")
