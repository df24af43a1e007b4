"""Packing of the relative positions of both axes for attention in vectors."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from .context import AttentionContext


@dataclass(frozen=True)
class PackedRelative:
    """Packed relative positions of both axes, vertical ones first.

    Attributes
    ----------
    packed : Buffer
        int8 ``(vectors, d / 4, lanes, 4)``.
    offset : Buffer
        Correction of products for zero points, int32 ``(vectors * lanes,)``.
    scale : Buffer
        Factors of shifted products, int32 ``(vectors * lanes,)``.
    """

    packed: Buffer
    offset: Buffer
    scale: Buffer

    @property
    def lanes(self) -> int:
        """Positions of a vector."""
        return int(self.packed.shape[2])


@dataclass(frozen=True)
class RelativeTable:
    """Relative positions of one axis.

    Attributes
    ----------
    rel : Buffer
        int8 ``(count, d)``.
    count : int
        Positions.
    first : int
        Place of the first one among those of both axes.
    backwards : bool
        True if the last position comes first.
    multiplier : Expr
        Factor of shifted products.
    """

    rel: Buffer
    count: int
    first: int
    backwards: bool
    multiplier: Expr

    def place(self, t: Expr) -> Expr:
        """Place of position `t` among those of both axes."""
        return self.first + (self.count - 1 - t if self.backwards else t)


def _vertical(attn: AttentionContext) -> RelativeTable:
    """Vertical relative positions, which come first."""
    return RelativeTable(attn.rel_h, 2 * attn.shape.height - 1, 0, False, attn.rel_h_multiplier)


def _horizontal(attn: AttentionContext, by_line: bool) -> RelativeTable:
    """Horizontal relative positions; backwards, so that those of a line of keys follow one another, if `by_line`."""
    first, count = 2 * attn.shape.height - 1, 2 * attn.shape.width - 1
    return RelativeTable(attn.rel_w, count, first, by_line, attn.rel_w_multiplier)


@T.inline
def _pack_axis(attn, table, relative):
    """Pack the relative positions of one axis."""
    for t in range(table.count):
        place = table.place(t)
        relative.scale[place] = table.multiplier
        relative.offset[place] = 0
        for c in range(attn.shape.d):
            relative.packed[place // relative.lanes, c // 4, place % relative.lanes, c % 4] = table.rel[t, c]
            relative.offset[place] = relative.offset[place] - attn.q_zero * T.cast(table.rel[t, c], "int32")


@T.inline
def pack_relative(attn, by_line, relative):
    """Pack the relative positions of both axes, for lines of keys that begin vectors or for others."""
    _pack_axis(attn, _vertical(attn), relative)
    _pack_axis(attn, _horizontal(attn, by_line), relative)
