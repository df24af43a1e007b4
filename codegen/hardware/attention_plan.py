"""Sizes and places of a streamed attention: what lies where in the scratchpads and in external memory.

Keys of one picture row are padded to whole blocks of Dim. Queries are taken in tiles of `rows`: some picture rows, or a
part of one (*segments* of queries with the same height). Keys and values come in *chunks* of some picture rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import DeviceError
from ...quantizers.reference import LogAttention
from .config import Config
from .image import MemoryImage
from .layout import code_blocks, decode_table, encode_table, fixed_scale, pack_codes

QUERIES, PROBABILITIES, QUERIES_HIGH = range(3)
"""Decode tables; the third is 16 times the first, for the high half of an int8 weight."""


QUERY_BUFFERS = 3
"""Tiles whose queries are in ``act`` at a time."""


@dataclass(frozen=True)
class PictureHeads:
    """Heads of one or several pictures (windows) of the same size, with the same constants.

    Attributes
    ----------
    q, k, v : numpy.ndarray
        ``(heads, height * width, d)`` uint8 codes of 4 bits, d a multiple of Dim.
    constants : LogAttention
        Of the site.
    sides : (int, int)
        Height and width that the tokens tile.
    rel_h, rel_w : numpy.ndarray or None
        ``(2 height - 1, d)`` and ``(2 width - 1, d)`` int8, of all heads; both or neither.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    constants: LogAttention
    sides: tuple[int, int]
    rel_h: np.ndarray | None = None
    rel_w: np.ndarray | None = None


@dataclass(frozen=True)
class Segment:
    """Queries of a tile with the same height: `count` from column `x` on, at row `at` of the tile."""

    at: int
    count: int
    y: int
    x: int


class Plan:
    """Sizes of a call, places in the scratchpads (words) and addresses of its operands.

    Raises
    ------
    DeviceError
        If a head does not fit the scratchpads, whose names the message gives.
    """

    def __init__(self, config: Config, heads: PictureHeads, rows: int) -> None:
        self.config, self.heads, self.rows = config, heads, rows
        self.height, self.width = heads.sides
        self.count, self.tokens, self.channels = heads.q.shape
        self.relative = heads.rel_h is not None and heads.rel_w is not None
        dim = config.dim
        self.parts = self.channels // dim
        self.row_blocks = -(-self.width // dim)
        self.row_keys = self.row_blocks * dim
        self.keys, self.blocks = self.height * self.row_keys, self.height * self.row_blocks
        self._places()
        self._check()

    def _places(self) -> None:
        config, rows, dim = self.config, self.rows, self.config.dim
        segment = min(rows, self.width)
        self.h_blocks = -(-self.height // dim) if self.relative else 0
        self.w_blocks = -(-(self.width + segment - 1) // dim) if self.relative else 0
        granule = max(1, 16 // dim)
        entries = [self.height - 1 + self.h_blocks * dim, self.width - segment + self.w_blocks * dim]
        self.entries = [-(-size // granule) * granule if self.relative else 0 for size in entries]
        self.rel_wgt = [0, 2 * self.parts * self.entries[0]]
        self.ring = 2 * self.parts * sum(self.entries)
        # Keys of a chunk: two chunks behind the tables of relative positions. A single chunk has the first half of the
        # accumulators to itself; of several, each second is in the second half, and relative positions in the first.
        half, line = config.acc_depth // 2, self.row_blocks * rows
        sums, relative = 2 * self.parts * rows, (self.h_blocks + self.w_blocks) * rows
        room = (config.wgt_depth - self.ring) // (2 * self.parts * self.row_keys)
        single = self.height <= room and self.height * line <= half and sums + relative <= half
        several = min(self.height - 1, room, max(0, half - max(sums, relative)) // line)
        # of one size: a short one would leave too little time to load a long one
        self.chunk_rows = self.height if single else -(-self.height // -(-self.height // several)) if several > 0 else 0
        self.acc_sums = 2 * half - sums
        self.acc_relative = (self.acc_sums if single else half) - relative
        self.chunks = -(-self.height // self.chunk_rows) if self.chunk_rows else 0
        self.chunk_keys, self.chunk_blocks = self.chunk_rows * self.row_keys, self.chunk_rows * self.row_blocks
        # vec: a word of scales for sums, heights and widths; height terms, width terms; sums and, where there is room
        # for both, widths on their way to memory
        self.vec_h = 3
        self.h_buffers = 2 if self.chunks == 1 else 1
        self.vec_w = self.vec_h + self.h_buffers * self.h_blocks * rows
        self.vec_out = self.vec_w + (self.row_blocks * rows if self.relative else 0)
        self.vec_far = self.vec_out + self.parts * rows
        self.vec_end = self.vec_far + self.w_blocks * rows
        if self.vec_end > config.vec_depth:
            self.vec_far = self.vec_out
            self.vec_end = self.vec_out + max(self.parts, self.w_blocks) * rows
        queries = QUERY_BUFFERS * self.parts * rows
        # chunks whose values are multiplied a tile later, to give the array work while row sums are taken
        self.prob_slots = (config.act_depth - queries) // max(1, self.chunk_blocks * rows)
        self.prob_at = queries
        self.lag = max(0, min(self.chunks // 2, self.prob_slots - 2))

    def _check(self) -> None:
        config, rows = self.config, self.rows
        fits = {
            "wgt and acc": self.chunk_rows >= 1, "act": self.prob_slots >= 2, "stat": 2 * rows <= config.stat_depth,
            "lgt": 2 * rows * self.blocks <= config.lgt_depth, "vec": self.vec_end <= config.vec_depth,
        }  # fmt: skip
        full = [name for name, fit in fits.items() if not fit]
        if self.channels % config.dim or self.tokens != self.height * self.width:
            raise DeviceError(
                f"{self.tokens} tokens of {self.channels} channels do not tile {self.height} x {self.width} in "
                f"blocks of {config.dim} channels: pad the head."
            )
        whole = rows % self.width == 0 or self.width % rows == 0
        if self.tokens % rows or not whole or rows * config.dim % 16:
            raise DeviceError(f"Tiles of {rows} queries do not divide a picture of {self.height} x {self.width}.")
        if full:
            raise DeviceError(
                f"{self.height} x {self.width} tokens of {self.channels} channels, {rows} queries at a time, do not "
                f"fit {config.name}: {', '.join(full)}."
            )

    def place(self, image: MemoryImage) -> None:
        """Puts operands into memory and reserves what is written."""
        dim, heads, c = self.config.dim, self.heads, self.heads.constants
        padded = np.zeros((2, self.count, self.height, self.row_keys, self.channels), np.uint8)
        padded[:, :, :, : self.width] = np.stack([heads.k, heads.v]).reshape(2, self.count, self.height, self.width, -1)
        keys = padded.reshape(2, self.count, self.keys, self.channels)
        operands = {"q": heads.q, "k": keys[0], "v": keys[1]}
        self.at = {
            name: image.place(pack_codes(np.stack([code_blocks(head, dim) for head in part])))
            for name, part in operands.items()
        }
        query = np.arange(16) - c.q_zero
        self.at["decode"] = image.place(np.concatenate([decode_table(t) for t in (query, c.table, 16 * query)]))
        self.at["encode"] = image.place(encode_table(-c.log_thresholds - 1, np.arange(len(c.table))))
        scales = [fixed_scale(np.array(1.0), 0), c.rel_h_multiplier, c.rel_w_multiplier]
        self.at["scales"] = image.place(np.repeat(np.array(scales, np.int32), dim))
        if heads.rel_h is not None and heads.rel_w is not None and self.relative:
            for name, table, entries in zip("hw", (heads.rel_h, heads.rel_w), self.entries, strict=True):
                self.at[name] = image.place(_table_codes(table, entries, dim))
            # behind the last query its window may read past its row: room for one more
            self.rel_pitch = 4 * self.w_blocks * dim
            self.rel_buffers = [image.reserve((self.rows + 1) * self.rel_pitch) for _ in range(2)]
        self.result = image.reserve(self.count * self.channels * self.tokens * 4)

    def segments(self, first: int) -> list[Segment]:
        """Of the tile from query `first` on."""
        count = min(self.rows, self.width)
        starts = range(first, first + self.rows, count)
        return [Segment(at - first, count, at // self.width, at % self.width) for at in starts]


def _table_codes(table: np.ndarray, entries: int, dim: int) -> bytes:
    """Halves of a table of relative positions as two sets of keys, the greatest distance first."""
    padded = np.zeros((entries, table.shape[1]), np.int16)
    padded[: len(table)] = table[::-1]
    halves = ((padded >> 4) + 8, padded & 15)
    return pack_codes(np.stack([code_blocks(half.astype(np.uint8), dim) for half in halves]))
