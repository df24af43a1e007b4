"""What tuning may try: the default first, tiles that fit alone, the others counted."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.lower.attention.plan import AttentionStage, largest_plan
from tvm_ahcq.codegen.lower.linear.stage import LinearStage, pack_fields
from tvm_ahcq.codegen.lower.linear.tiling import choose_tiling, tiling_of
from tvm_ahcq.codegen.lower.tile_space import attention_space, linear_space
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import AttentionConstants, attention_logit_scale

CONFIG = named("sim_4x4")


def linear(rows: int, outputs: int, groups: tuple[int, ...]) -> LinearStage:
    zeros = np.zeros((outputs, sum(groups)), np.uint8)
    fields = pack_fields([225 * size for size in groups])
    return LinearStage(rows, zeros, zeros[:, 0], groups, np.zeros((len(groups), 16), int), fields)


def attention(keys: int, sides: tuple[int, ...] = ()) -> AttentionStage:
    scale = attention_logit_scale((1800, 6e-3), (15240, 4e-4, 3e-4) if sides else None)
    numbers = AttentionConstants(
        7,
        6,
        9,
        **scale,
        log_thresholds=np.arange(15, 0, -1),
        table=np.arange(16),
        out_scale=np.float32(1),
        row_relative=True,
    )
    return AttentionStage(3, keys, keys, 8, numbers, *[np.zeros((2 * side - 1, 8), np.int8) for side in sides])


def test_of_all_combinations_those_that_fit_and_may_win_are_tried_and_the_others_counted():
    config, stage = named("ecp5_16x16"), linear(64, 192, (96, 48))
    space, default = linear_space(config, stage), choose_tiling(config, stage)
    assert space.tiles[0] == default.tile and len(set(space.tiles)) == len(space.tiles) == len(space.features)
    tilings = [tiling_of(config, stage, tile) for tile in space.tiles]
    assert all(tiling.fits and tiling.busiest <= 1.05 * default.busiest for tiling in tilings)
    assert space.too_large > 0 and space.hopeless > 0
    assert {tile.columns_first for tile in space.tiles} == {False, True}
    assert len({tile.rows for tile in space.tiles}) > 3 and len({tile.chunk for tile in space.tiles}) > 3


def test_tiles_of_an_attention_begin_with_the_default():
    stage = attention(196, (14, 14))
    plan, space = largest_plan(CONFIG, stage), attention_space(CONFIG, stage)
    default = space.tiles[0]
    assert (default.queries, default.lines, default.lag) == (plan.tile_queries, plan.chunk_rows, plan.lag)
    assert len(set(space.tiles)) == len(space.tiles) == len(space.features) > 5
    assert space.too_large > 0


def test_what_does_not_fit_at_all_has_no_tiles():
    with pytest.raises(DeviceError, match="multiple of 8"):
        linear_space(CONFIG, linear(9, 4, (4,)))
    with pytest.raises(DeviceError, match="do not fit the scratchpads"):
        attention_space(CONFIG, attention(8191))
