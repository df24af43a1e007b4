"""The search space of tuning: tiles that fit the scratchpads and could be the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.attention.plan import AttentionPlan, AttentionStage, largest_plan, tile_sizes
from tvm_ahcq.codegen.lower.linear.stage import LinearStage
from tvm_ahcq.codegen.lower.linear.tiling import MAX_BLOCKS, Tiling, choose_tiling
from tvm_ahcq.errors import DeviceError

from .tiles import AttentionTile, Tile

_MOST_ROWS = 256
"""Of a tile of a linear layer, all multiples of 8 up to which are tried."""

_SHARES = (2, 3, 4, 5, 6, 8)
"""Chunks of inputs that scratchpads hold."""

_MOST_AHEAD = 3
"""Chunks whose loads stand in front of a GEMM."""

_MARGIN = 1.05
"""Cycles of a tile's busiest unit, alone, against those of the default's, up to which it is tried: it cannot be faster
than that unit, and the default takes hardly longer than its own."""

_MOST_ARRAY = 2
"""Cycles of the array that an attention takes, against those of the default, from which on a tile is left out."""


@dataclass(frozen=True)
class TileSpace:
    """Candidates of tuning.

    Attributes
    ----------
    tiles : list of Tile
        The default first.
    features : numpy.ndarray
        ``(tiles, n)`` float64: each tile as numbers that a model can learn from.
    too_large : int
        Combinations of sizes that do not fit the scratchpads.
    hopeless : int
        Those that fit, but one of whose units alone takes longer than the default.
    """

    tiles: list[Tile]
    features: np.ndarray
    too_large: int
    hopeless: int


def linear_space(config: Config, stage: LinearStage) -> TileSpace:
    """Return the tiles of a linear layer.

    Raises
    ------
    DeviceError
        If the layer does not fit the accelerator.
    """
    default = choose_tiling(config, stage)
    tilings, too_large, hopeless = {default.tile: default}, 0, 0
    for tiling in _linear_grid(config, stage):
        if not tiling.fits:
            too_large += 1
        elif tiling.busiest > _MARGIN * default.busiest:
            hopeless += 1
        elif tiling.ahead == tiling.most_ahead:  # else it is the same as one with fewer ahead
            tilings.setdefault(tiling.tile, tiling)
    features = np.array([_linear_features(tiling) for tiling in tilings.values()])
    return TileSpace(list(tilings), features, too_large, hopeless)


def _linear_grid(config: Config, stage: LinearStage) -> Iterator[Tiling]:
    """All combinations, whether they fit or not."""
    rows = range(8, min(_MOST_ROWS, stage.rows) + 1, 8)
    blocks = range(1, min(MAX_BLOCKS, stage.outputs // config.dim) + 1)
    for row, block in product(rows, blocks):
        resident = Tiling(config, stage, row, block).resident
        chunks = sorted({max(1, resident // share) for share in _SHARES})
        for chunk, ahead, columns_first in product(chunks, range(_MOST_AHEAD + 1), (False, True)):
            yield Tiling(config, stage, row, block, chunk, ahead, columns_first)


def _linear_features(tiling: Tiling) -> list[float]:
    tile, stage = tiling.tile, tiling.stage
    sets = -(-stage.outputs // tiling.config.dim // tile.blocks) * tile.blocks * tiling.config.dim / stage.outputs
    rows = -(-stage.rows // tile.rows) * tile.rows / stage.rows
    held = tiling.resident // tiling.largest
    return [tile.rows, tile.blocks, tiling.largest, tile.ahead, tile.columns_first, sets, rows, held, tiling.busiest]


def attention_space(config: Config, stage: AttentionStage) -> TileSpace:
    """Return the tiles of an attention.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator.
    """
    largest = largest_plan(config, stage)
    default = AttentionTile(largest.tile_queries, largest.chunk_rows, largest.lag)
    plans, too_large, hopeless = {default: largest}, 0, 0
    for tile, plan in _attention_grid(config, stage):
        if plan is None:
            too_large += 1
        elif _array_cycles(plan) >= _MOST_ARRAY * _array_cycles(largest):
            hopeless += 1
        else:
            plans.setdefault(tile, plan)
    features = np.array(
        [
            [tile.queries, tile.lines, tile.lag, plan.chunks, plan.tiles * plan.rows, plan.prob_slots]
            for tile, plan in plans.items()
        ],
        np.float64,
    )
    return TileSpace(list(plans), features, too_large, hopeless)


def _attention_grid(config: Config, stage: AttentionStage) -> Iterator[tuple[AttentionTile, AttentionPlan | None]]:
    """All combinations; without a plan if they do not fit: at once for all of a size of tile that never fits."""
    for queries in tile_sizes(config, stage):
        widest = _plan(config, stage, queries)
        if widest is None:
            yield AttentionTile(queries, 0, 0), None
            continue
        for lines in range(1, widest.height + 1):
            for lag in range(-(-widest.height // lines)):
                yield AttentionTile(queries, lines, lag), _plan(config, stage, queries, lines, lag)


def _plan(config: Config, stage: AttentionStage, *sizes: int) -> AttentionPlan | None:
    """The plan of such a tile (queries; lines and lag, by default the compiler's), if it fits."""
    try:
        return AttentionPlan(config, stage, *sizes)
    except DeviceError:
        return None


def _array_cycles(plan: AttentionPlan) -> int:
    """Cycles of the array for a block of keys: a tile of few rows takes as long as its weights."""
    return plan.tiles * max(plan.rows, plan.config.dim + 1)
