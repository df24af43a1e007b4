"""Tiling of log-domain attention with AVX2: register tiles, depths of 16-bit sums, and parallel tasks."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr

from tvm_ahcq.kernels.common.avx2 import LANES, MAX_WORD, WORDS

from .context import AttentionShape
from .key_vectors import KeyVectors

ROWS = 4
"""Query rows of a register tile, which is two vectors wide: as many sums as leave registers for the factors."""

BLOCK = 32
"""Keys whose operands fill a register."""

_CHUNK = 48
"""Query rows of a parallel task, which allocates its memory once for all of them; a multiple of `ROWS`."""

_SMALL = 512
"""A head of so many keys or fewer is one parallel task, from packing to the output."""

_MAX_OPERAND, _MAX_RELATIVE = 255, 128
"""Largest operand of a probability, and largest absolute value of a relative position."""

MAX_BITS = 6
"""Bits of codes whose products in pairs, with any operands, fit in 16 bits."""


def _depth(unsigned: int, signed: int) -> int:
    """Steps of four channels whose products, of factors up to these in absolute value, sum within 16 bits."""
    return MAX_WORD // (2 * unsigned * signed)


@dataclass(frozen=True)
class Avx2Tiling:
    """Tiling of an attention kernel; see :func:`avx2_tiling`.

    Attributes
    ----------
    shape : AttentionShape
        Sizes of the attention.
    place : KeyVectors
        Assignment of keys to vectors of 8.
    whole_heads : bool
        True if a head is one parallel task.
    dot : bool
        True to sum products of bytes in 32 bits, by AVX-VNNI.
    """

    shape: AttentionShape
    place: KeyVectors
    whole_heads: bool
    dot: bool = False

    @property
    def steps(self) -> int:
        """Steps of four channels."""
        return self.shape.d // 4

    @property
    def query_depth(self) -> int:
        """Steps of queries times keys within 16 bits."""
        return min(_depth(self.shape.top, self.shape.top), self.steps)

    @property
    def relative_depth(self) -> int:
        """Steps of queries times relative positions within 16 bits."""
        return min(_depth(self.shape.top, _MAX_RELATIVE), self.steps)

    @property
    def value_depth(self) -> int:
        """Quadruples of keys, of any operands times values, within 16 bits."""
        return _depth(_MAX_OPERAND, self.shape.top)

    @property
    def vectors(self) -> int | Expr:
        """Vectors of all keys, an even number."""
        return (self.place.count + 1) // 2 * 2

    @property
    def blocks(self) -> int | Expr:
        """Blocks of `BLOCK` keys."""
        return (self.place.count * LANES + BLOCK - 1) // BLOCK

    @property
    def by_line(self) -> bool:
        """True if each line of the grid begins a vector."""
        return self.place.lines > 0

    @property
    def odd_lines(self) -> bool:
        """True if there is a vector past those of the grid's lines."""
        return self.by_line and self.place.count % 2 > 0

    @property
    def relative(self) -> bool:
        """True if there are relative positions."""
        return self.shape.grid is not None

    @property
    def ragged(self) -> bool:
        """True if lanes may hold no key."""
        return not isinstance(self.shape.keys, int) or self.shape.keys < self.vectors * LANES

    @property
    def relative_vectors(self) -> int:
        """Vectors of all relative positions, an even number."""
        return -(-(2 * self.shape.height + 2 * self.shape.width - 2) // WORDS) * 2

    @property
    def value_vectors(self) -> int:
        """Vectors of channels of a value, an even number."""
        return -(-self.shape.value_channels // WORDS) * 2

    @property
    def chunk_rows(self) -> int | Expr:
        """Query rows of a parallel task."""
        return self.shape.queries if self.whole_heads else _CHUNK

    @property
    def chunks(self) -> int | Expr:
        """Parallel tasks of a head."""
        return (self.shape.queries + self.chunk_rows - 1) // self.chunk_rows


def avx2_tiling(shape: AttentionShape, dot: bool = False) -> Avx2Tiling:
    """Return the tiling of a shape."""
    whole = isinstance(shape.queries, int) and isinstance(shape.keys, int) and max(shape.queries, shape.keys) <= _SMALL
    return Avx2Tiling(shape, KeyVectors.of(shape, LANES), whole, dot)
