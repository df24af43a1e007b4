"""Tiles of operators: the choices of tuning, as plain numbers that records keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.errors import TuningError
from tvm_ahcq.runtime.operator_shapes import Shape


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
        Chunks whose values wait, with their probabilities in ``act``, until the next tile's last logits are computed.
    """

    queries: int
    lines: int
    lag: int

    def __str__(self) -> str:
        return f"{self.queries} queries, {self.lines} lines of keys a chunk, {self.lag} chunks late"


Tile = LinearTile | AttentionTile

Tiles = Mapping[Shape, Tile]
"""Choices of tuning; the compiler's own choice holds where there is none."""

NO_TILES: Tiles = {}


def tile_misfit(config: Config, shape: Shape, tile: Tile) -> TuningError:
    """Return the error of a recorded tile that does not fit its operator."""
    return TuningError(
        f"{shape}: the tile that was recorded for {config.name} ({tile}) does not fit it; tune again in "
        "an empty folder, or compile without --tuning"
    )
