"""Tiles and tuning keys of operators: plain numbers, as records store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.errors import TuningError


@dataclass(frozen=True, order=True)
class LinearShape:
    """Tuning key of a linear layer; the division of channels among groups hardly matters.

    Attributes
    ----------
    rows : int
        Of the layer.
    outputs, channels : int
        Multiples of Dim; channels without what pads each group.
    words : tuple of int
        Groups whose sums share a word, for each word of a result.
    encoded : bool
        Whether sums become codes for the next layer on the accelerator.
    group_sizes : tuple of int
        Channels of each group with padding, of the layer that was looked at; not compared.
    code_halves, weight_halves : int
        2 where codes or weights have more than 4 bits.
    """

    rows: int
    outputs: int
    channels: int
    words: tuple[int, ...]
    encoded: bool
    group_sizes: tuple[int, ...] = field(compare=False)
    code_halves: int = 1
    weight_halves: int = 1

    def __str__(self) -> str:
        kind = "linear to codes" if self.encoded else "linear"
        halves = (("codes", self.code_halves), ("weights", self.weight_halves))
        wide = "".join(f", {what} in halves" for what, count in halves if count > 1)
        return f"{kind} {self.rows} x {self.channels} -> {self.outputs}, {sum(self.words)} groups{wide}"


@dataclass(frozen=True, order=True)
class AttentionShape:
    """Tuning key of an attention.

    Attributes
    ----------
    heads, queries, keys, channels : int
        Sizes, all pictures (windows) together.
    sides : tuple of int
        Height and width of the picture where there are relative positions, else empty.
    """

    heads: int
    queries: int
    keys: int
    channels: int
    sides: tuple[int, ...]

    def __str__(self) -> str:
        picture = f", picture of {self.sides[0]} x {self.sides[1]}" if self.sides else ""
        return f"attention {self.heads} x {self.queries} x {self.keys} x {self.channels}{picture}"


@dataclass(frozen=True, order=True)
class LinearTile:
    """Sizes and order of a linear layer's loops.

    Attributes
    ----------
    rows, blocks : int
        Rows and column blocks of a tile; accumulators are shared out by them.
    chunk : int
        Most input blocks that are loaded at a time: how the rest of ``act`` and ``wgt`` is split.
    ahead : int
        Most chunks whose loads stand in front of a GEMM.
    columns_first : bool
        Whether all rows meet a set of column blocks before the next set; else all sets meet a tile of rows.
    """

    rows: int
    blocks: int
    chunk: int
    ahead: int
    columns_first: bool = False

    def __str__(self) -> str:
        order = ", columns outermost" if self.columns_first else ""
        return f"{self.rows} rows, {self.blocks} blocks, chunks of {self.chunk}, {self.ahead} ahead{order}"


@dataclass(frozen=True, order=True)
class AttentionTile:
    """Sizes and order of an attention's loops.

    Attributes
    ----------
    queries : int
        Of a tile.
    lines : int
        Of keys, in a chunk: how ``wgt`` and accumulators are split.
    lag : int
        Chunks whose values wait, with their probabilities in ``act``, until the next tile's row sums are taken.
    """

    queries: int
    lines: int
    lag: int

    def __str__(self) -> str:
        return f"{self.queries} queries, {self.lines} lines of keys a chunk, {self.lag} chunks late"


Shape = LinearShape | AttentionShape
Tile = LinearTile | AttentionTile

Tiles = Mapping[Shape, Tile]
"""What was found by tuning; the compiler's own choice holds where there is nothing."""

NO_TILES: Tiles = {}


def tile_misfit(config: Config, shape: Shape, tile: Tile) -> TuningError:
    """Return the error of a recorded tile that does not fit its operator."""
    return TuningError(
        f"{shape}: the tile that was recorded for {config.name} ({tile}) does not fit it; tune again in "
        "an empty folder, or compile without --tuning"
    )
