"""Attention as instructions, on the numpy model, against the integer reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.dependency_tokens import insert_dependency_tokens
from tvm_ahcq.codegen.isa.layout import code_blocks, pack_codes
from tvm_ahcq.codegen.lower.address_space import DeviceMemory
from tvm_ahcq.codegen.lower.attention.addresses import place_attention
from tvm_ahcq.codegen.lower.attention.plan import AttentionPlan, AttentionStage, largest_plan
from tvm_ahcq.codegen.lower.attention.stream import stream_instructions
from tvm_ahcq.codegen.lower.standalone import standalone
from tvm_ahcq.codegen.lower.tile_space import attention_space
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import AttentionConstants, attention_logit_scale, log_attention

CONFIG = named("sim_4x4")


def constants(rng, channels: int, relative: bool) -> AttentionConstants:
    rel = (15 * 127 * channels, 4e-4, 3e-4) if relative else None
    scale = attention_logit_scale((15 * 15 * channels, 6e-3), rel)
    thresholds = np.sort(rng.choice(9000, 15, replace=False))[::-1].astype(np.int32)
    table = np.concatenate([[0], np.sort(rng.integers(1, 256, 15))]).astype(np.uint8)
    return AttentionConstants(7, 6, 9, **scale, log_thresholds=thresholds, table=table, out_scale=np.float32(1e-3))


def run(plan: AttentionPlan, q, k, v) -> np.ndarray:
    """int32 sums ``(heads, queries, channels)``."""
    stage, config = plan.stage, plan.config
    memory, dim = DeviceMemory(), plan.config.dim
    places = plan.query_rows(), plan.key_rows(), plan.key_rows()
    padded = [
        np.where(at[None, :, None] >= 0, x[:, np.maximum(at, 0)], 0) for x, at in zip((q, k, v), places, strict=True)
    ]
    data = [pack_codes(np.stack([code_blocks(head.astype(np.uint8), dim) for head in x])) for x in padded]
    addresses = place_attention(plan, memory)
    program = standalone(memory, insert_dependency_tokens(stream_instructions(plan, addresses), config))
    verify(program.program, config, program.start)
    external = program.image(dict(zip((addresses.queries, addresses.keys, addresses.values), data, strict=True)))
    ended = Machine(config, external).run(program.start, program.length)
    assert ended.error == "none", ended
    shape = stage.heads, plan.channel_blocks, plan.padded_queries, dim
    sums = np.frombuffer(external, np.int32, padded[0].size, addresses.sums).reshape(shape).swapaxes(1, 2)
    order = [list(places[0]).index(query) for query in range(stage.queries)]
    return sums.reshape(stage.heads, -1, stage.channels)[:, order]


@pytest.mark.parametrize(
    ("queries", "keys", "sides", "config", "rows", "chunked"),
    [
        (9, 9, (3, 3), CONFIG, None, False),
        (35, 35, (5, 7), CONFIG, None, False),
        (35, 35, (5, 7), CONFIG, 7, False),
        (24, 24, (4, 6), CONFIG, 3, False),
        (12, 30, None, CONFIG, None, False),
        (30, 12, None, CONFIG, 8, False),
        # keys and values that do not stay on the chip
        (40, 40, (5, 8), replace(CONFIG, wgt_depth=260, act_depth=160, vec_depth=64), None, True),
        (16, 70, None, replace(CONFIG, wgt_depth=128, act_depth=160), None, True),
    ],
)
def test_sums_equal_the_reference(queries, keys, sides, config, rows, chunked):
    rng, heads, channels = np.random.default_rng(queries + keys), 2, 8
    c = constants(rng, channels, sides is not None)
    rel = [rng.integers(-127, 128, (2 * side - 1, channels)).astype(np.int8) for side in sides or ()]
    stage = AttentionStage(heads, queries, keys, channels, c, *rel)
    plan = largest_plan(config, stage) if rows is None else AttentionPlan(config, stage, rows)
    q = rng.integers(0, 16, (heads, queries, channels)).astype(np.uint8)
    k, v = (rng.integers(0, 16, (heads, keys, channels)).astype(np.uint8) for _ in range(2))
    expected = log_attention(q, k, v, c, *rel)
    assert np.array_equal(run(plan, q, k, v).astype(np.float32) * c.out_scale, expected)
    assert (plan.chunks > 1) == chunked


def test_every_tile_that_fits_gives_the_reference_result():
    rng, config = np.random.default_rng(3), replace(CONFIG, wgt_depth=260, act_depth=160, vec_depth=64)
    c = constants(rng, 8, True)
    rel = [rng.integers(-127, 128, (2 * side - 1, 8)).astype(np.int8) for side in (5, 8)]
    q, k, v = (rng.integers(0, 16, (2, 40, 8)).astype(np.uint8) for _ in "qkv")
    stage, expected = AttentionStage(2, 40, 40, 8, c, *rel), log_attention(q, k, v, c, *rel)
    tiles = attention_space(config, stage).tiles
    assert len({tile.lines for tile in tiles}) > 1 and max(tile.lag for tile in tiles) > 1
    for tile in tiles:
        plan = AttentionPlan(config, stage, tile.queries, tile.lines, tile.lag)
        assert np.array_equal(run(plan, q, k, v).astype(np.float32) * c.out_scale, expected), tile


def test_a_tile_has_no_more_queries_than_an_even_share_of_them():
    c = constants(np.random.default_rng(0), 8, True)
    rel = [np.zeros((2 * side - 1, 8), np.int8) for side in (5, 7)]
    plan = largest_plan(CONFIG, AttentionStage(1, 35, 35, 8, c, *rel))
    assert (plan.tiles, plan.tile_queries, plan.rows) == (2, 21, 24)  # of 3 and of 2 picture rows, in whole DMA words


def test_what_does_not_fit_is_refused():
    c = constants(np.random.default_rng(0), 8, False)
    with pytest.raises(DeviceError, match="blocks of 4 channels"):
        largest_plan(CONFIG, AttentionStage(1, 8, 8, 6, c))
    with pytest.raises(DeviceError, match="do not fit the scratchpads"):
        largest_plan(CONFIG, AttentionStage(1, 8, 8191, 8, c))
    with pytest.raises(DeviceError, match="22 bits"):
        largest_plan(CONFIG, AttentionStage(1, 8, 8, 8, replace(c, qk_multiplier=1 << 22)))
