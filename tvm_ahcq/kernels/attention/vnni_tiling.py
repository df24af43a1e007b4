"""Tiling of log-domain attention with AVX512-VNNI: register tiles, blocks and parallel tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tvm.ir import Expr

from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.target import HostTarget

from .context import AttentionShape
from .key_vectors import KeyVectors
from .vnni_softmax_codes import RowCoder


class RegisterTile(NamedTuple):
    """Size of a register tile: vectors of keys or of relative positions, by query rows."""

    vectors: int
    rows: int


_TILES = tuple(RegisterTile(*size) for size in ((4, 6), (7, 4), (5, 5), (6, 4), (3, 8), (2, 12), (1, 12)))
"""Register tiles, best first; the vectors must divide those of all keys."""

_CHUNK = 48
"""About so many query rows are a parallel task, which allocates its memory once for all of them."""

_SMALL = 512
"""A head of so many keys or fewer is one parallel task, from packing to the output."""


@dataclass(frozen=True)
class AttentionTiling:
    """Tiling of an attention kernel; see :func:`attention_tiling`.

    Attributes
    ----------
    shape : AttentionShape
        Sizes of the attention.
    place : KeyVectors
        Assignment of keys to vectors.
    coder : RowCoder
        Turns logits into operands.
    tile : RegisterTile
        For keys.
    relative_tile : RegisterTile
        For relative positions.
    relative_blocks : int
        Tiles of all relative positions.
    chunk_rows : int or Expr
        Query rows of a parallel task.
    value_vectors, value_chunk : int
        Vectors of channels of a value, and how many of them the second product takes at a time.
    whole_heads : bool
        True if a head is one parallel task.
    """

    shape: AttentionShape
    place: KeyVectors
    coder: RowCoder
    tile: RegisterTile
    relative_tile: RegisterTile
    relative_blocks: int
    chunk_rows: int | Expr
    value_vectors: int
    value_chunk: int
    whole_heads: bool

    @property
    def count(self) -> int:
        """Query rows of a tile."""
        return self.tile.rows

    @property
    def vectors(self) -> int | Expr:
        """Vectors of all keys."""
        return self.place.count

    @property
    def blocks(self) -> int | Expr:
        """Blocks of `KEYS` keys."""
        return (self.vectors + 3) // 4

    @property
    def by_line(self) -> bool:
        """True if each line of the grid begins a vector."""
        return self.place.lines > 0

    @property
    def relative(self) -> bool:
        """True if there are relative positions."""
        return self.shape.grid is not None

    @property
    def full_tiles(self) -> int | Expr:
        """Tiles that are full of keys, where these follow one another."""
        return self.place.tokens // (self.tile.vectors * LANES)

    @property
    def chunks(self) -> int | Expr:
        """Parallel tasks of a head."""
        return (self.shape.queries + self.chunk_rows - 1) // self.chunk_rows

    @property
    def relative_vectors(self) -> int:
        """Vectors of all relative positions."""
        return self.relative_blocks * self.relative_tile.vectors


def attention_tiling(shape: AttentionShape, target: HostTarget) -> AttentionTiling:
    """Return the tiling of a shape on a target."""
    place, tile = KeyVectors.of(shape), _TILES[0]
    if place.lines:
        tile = next(t for t in _TILES if place.count % t.vectors == 0)
    count, (h, w) = tile.rows, shape.grid or (1, 1)
    relative_width = 4 if count <= 6 else 2 if count <= 12 else 1
    value_vectors = -(-shape.d // LANES)
    whole = isinstance(shape.queries, int) and isinstance(shape.keys, int) and max(shape.queries, shape.keys) <= _SMALL
    return AttentionTiling(
        shape,
        place,
        RowCoder(shape.n_thresholds, target),
        tile,
        RegisterTile(relative_width, count),
        -(-(2 * h + 2 * w - 2) // (relative_width * LANES)),
        shape.queries if whole else -(-_CHUNK // count) * count,
        value_vectors,
        next(width for width in (4, 3, 2, 1) if value_vectors % width == 0 and width * count <= 28),
        whole,
    )
