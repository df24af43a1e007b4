"""Attention as instructions, on the numpy model, against the integer reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.generated.isa import Gemm
from tvm_ahcq.codegen.lower.attention.operator import attention_shape, lower_attention
from tvm_ahcq.codegen.lower.attention.plan import AttentionPlan, AttentionStage, largest_plan
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.standalone import packed_inputs, standalone
from tvm_ahcq.codegen.lower.tile_space import attention_space
from tvm_ahcq.codegen.lower.tiles import AttentionTile
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import AttentionConstants, attention_logit_scale, log_attention

CONFIG = named("sim_4x4")
SMALL = replace(CONFIG, wgt_depth=260, act_depth=160, vec_depth=64)
"""Keys and values do not stay on the chip."""


def constants(rng, channels: int, relative: bool, v_zero: int = 9) -> AttentionConstants:
    rel = (15 * 127 * channels, 4e-4, 3e-4) if relative else None
    scale = attention_logit_scale((15 * 15 * channels, 6e-3), rel)
    thresholds = np.sort(rng.choice(9000, 15, replace=False))[::-1].astype(np.int32)
    table = np.concatenate([[0], np.sort(rng.integers(1, 256, 15))]).astype(np.uint8)
    return AttentionConstants(
        7, 6, v_zero, **scale, log_thresholds=thresholds, table=table, out_scale=np.float32(0.31), row_relative=True
    )


def random_stage(
    rng, heads: int, tokens: tuple[int, int], channels: int, sides: tuple[int, int] | None, v_zero: int = 9
) -> AttentionStage:
    c = constants(rng, channels, sides is not None, v_zero)
    rel = [rng.integers(-127, 128, (2 * side - 1, channels)).astype(np.int8) for side in sides or ()]
    return AttentionStage(heads, *tokens, channels, c, *rel)


def random_codes(rng, stage: AttentionStage) -> list[np.ndarray]:
    """Queries, keys and values."""
    tokens = stage.queries, stage.keys, stage.keys
    return [rng.integers(0, 16, (stage.heads, rows, stage.channels)).astype(np.uint8) for rows in tokens]


def lowered(config, stage: AttentionStage, plan: AttentionPlan) -> OffloadedOp:
    shape = stage.heads, stage.queries, stage.keys, stage.channels
    tiles = {attention_shape(config, stage): AttentionTile(plan.tile_queries, plan.chunk_rows, plan.lag)}
    return lower_attention(config, shape, stage.constants, stage.rel_h, stage.rel_w, tiles)


def memory_behind(operator: OffloadedOp, codes: list[np.ndarray]) -> bytes:
    """Memory that the program leaves on the numpy model."""
    program = standalone(operator.memory, operator.program)
    verify(program.program, operator.config, program.start)
    memory = program.image(packed_inputs(operator, *(x.reshape(-1, x.shape[-1]) for x in codes)))
    ended = Machine(operator.config, memory).run(program.start, program.length)
    assert ended.error == "none", ended
    return bytes(memory)


@pytest.mark.parametrize("v_zero", [0, 9, 15])
@pytest.mark.parametrize(
    ("queries", "keys", "channels", "sides", "config", "rows", "chunked"),
    [
        (9, 9, 8, (3, 3), CONFIG, None, False),
        (35, 35, 8, (5, 7), CONFIG, None, False),
        (35, 35, 8, (5, 7), CONFIG, 7, False),
        (24, 24, 8, (4, 6), CONFIG, 3, False),
        (12, 30, 8, None, CONFIG, None, False),
        (30, 12, 8, None, CONFIG, 8, False),
        (40, 40, 8, (5, 8), SMALL, None, True),
        (16, 70, 8, None, replace(CONFIG, wgt_depth=128, act_depth=160), None, True),
        # heads that are padded
        (35, 35, 6, (5, 7), CONFIG, None, False),
        (40, 40, 5, (5, 8), SMALL, None, True),
        (12, 30, 3, None, CONFIG, None, False),
    ],
)
def test_results_equal_the_reference(queries, keys, channels, sides, config, rows, chunked, v_zero, attention_results):
    rng = np.random.default_rng(queries + keys)
    stage = random_stage(rng, 2, (queries, keys), channels, sides, v_zero)
    plan = largest_plan(config, stage) if rows is None else AttentionPlan(config, stage, rows)
    codes, operator = random_codes(rng, stage), lowered(config, stage, plan)
    found = attention_results(operator, memory_behind(operator, codes))
    assert np.array_equal(found, log_attention(*codes, stage.constants, stage.rel_h, stage.rel_w))
    assert (plan.chunks > 1) == chunked


def test_every_tile_that_fits_gives_the_reference_result(attention_results):
    rng = np.random.default_rng(3)
    stage = random_stage(rng, 2, (40, 40), 8, (5, 8))
    codes = random_codes(rng, stage)
    expected = log_attention(*codes, stage.constants, stage.rel_h, stage.rel_w)
    tiles = attention_space(SMALL, stage).tiles
    assert len({tile.lines for tile in tiles}) > 1 and max(tile.lag for tile in tiles) > 1
    for tile in tiles:
        operator = lowered(SMALL, stage, AttentionPlan(SMALL, stage, tile.queries, tile.lines, tile.lag))
        assert np.array_equal(attention_results(operator, memory_behind(operator, codes)), expected), tile


@pytest.mark.parametrize(("channels", "blocks"), [(8, 2 + 2 + 1), (6, 2 + 2), (4, 1 + 1 + 1)])
def test_sums_of_operands_take_a_block_only_where_channels_leave_no_column_free(channels, blocks):
    stage = random_stage(np.random.default_rng(0), 1, (16, 16), channels, None)
    operator = lowered(CONFIG, stage, largest_plan(CONFIG, stage))
    fed = sum(each.rows * each.steps * each.blocks for each in operator.instructions if isinstance(each, Gemm))
    assert fed == blocks * 16 * 4


def test_a_tile_has_no_more_queries_than_an_even_share_of_them():
    stage = random_stage(np.random.default_rng(0), 1, (35, 35), 8, (5, 7))
    plan = largest_plan(CONFIG, stage)
    assert (plan.tiles, plan.tile_queries, plan.rows) == (2, 21, 24)  # of 3 and of 2 picture rows, in whole DMA words


def test_what_does_not_fit_is_refused():
    c = constants(np.random.default_rng(0), 8, False)
    with pytest.raises(DeviceError, match="do not fit the scratchpads"):
        largest_plan(CONFIG, AttentionStage(1, 8, 8191, 8, c))
    with pytest.raises(DeviceError, match="22 bits"):
        largest_plan(CONFIG, AttentionStage(1, 8, 8, 8, replace(c, qk_multiplier=1 << 22)))
