"""Streamed attention against ``reference.log_attention``, on the functional simulator; cycles against the RTL."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.lower.attention.operator import attention_shape, lower_attention
from tvm_ahcq.codegen.lower.attention.plan import AttentionPlan, AttentionStage, largest_plan
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.standalone import packed_inputs, standalone
from tvm_ahcq.codegen.lower.tiles import AttentionTile
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core import reference


def random_stage(
    heads: int, sides: tuple[int, int], channels: int, relative: bool = True, v_zero: int = 9
) -> AttentionStage:
    rng, tokens = np.random.default_rng(sum(sides) + channels), sides[0] * sides[1]
    q, k, v = (UniformParams(bits=4, scale=0.31, zero_point=zero) for zero in (8, 6, v_zero))
    tables = [rng.normal(size=(2 * side - 1, channels)) if relative else None for side in sides]
    quantizers = AttentionQuantizers(q, k, v, RowRelativeParams(bits=4, alpha=20.0))
    constants, rel_h, rel_w = attention_constants(
        quantizers, scale=channels**-0.5, head_dim=channels, rel_h=tables[0], rel_w=tables[1]
    )
    return AttentionStage(heads, tokens, tokens, channels, constants, rel_h, rel_w)


def random_codes(stage: AttentionStage) -> np.ndarray:
    """``(3, heads, tokens, channels)``: queries, keys, values."""
    return np.random.default_rng(1).integers(0, 16, (3, stage.heads, stage.queries, stage.channels)).astype(np.uint8)


def expected(stage: AttentionStage) -> np.ndarray:
    return reference.log_attention(*random_codes(stage), stage.constants, stage.rel_h, stage.rel_w)


def lowered(name: str, stage: AttentionStage, queries: int | None) -> OffloadedOp:
    """Program with tiles of so many queries, else the default."""
    config, tiles = named(name), {}
    if queries is not None:
        plan = AttentionPlan(config, stage, queries)
        tiles = {attention_shape(config, stage): AttentionTile(queries, plan.chunk_rows, plan.lag)}
    shape = stage.heads, stage.queries, stage.keys, stage.channels
    operator = lower_attention(config, shape, stage.constants, stage.rel_h, stage.rel_w, tiles)
    assert operator.runs == 1 and operator.tuned == (queries is not None)
    return operator


def run(backend: str, operator: OffloadedOp, stage: AttentionStage) -> tuple[bytes, dict[str, int]]:
    """Memory and all counters."""
    program = standalone(operator.memory, operator.program)
    memory = program.image(packed_inputs(operator, *random_codes(stage).reshape(3, -1, stage.channels)))
    with open_device(backend, operator.config, memory_bytes=len(memory)) as device:
        device.copy_in(0, memory)
        assert device.run(program.start, program.length).error == "none"
        return device.copy_out(0, len(memory)), device.counters()


@pytest.mark.parametrize(
    ("name", "heads", "sides", "channels", "relative", "queries"),
    [
        ("sim_4x4", 2, (8, 7), 8, True, None),
        ("sim_4x4", 2, (8, 7), 8, False, None),
        ("sim_4x4", 1, (8, 8), 8, True, 4),
        ("sim_4x4", 3, (12, 12), 16, True, 12),
        ("sim_4x4", 2, (16, 16), 16, True, 16),
        ("sim_4x4", 1, (16, 16), 16, False, 16),
        ("sim_4x4", 2, (16, 16), 10, True, None),
        ("ecp5_16x16", 2, (14, 14), 64, True, 28),
        ("ecp5_16x16", 2, (14, 14), 40, True, None),
        ("ecp5_16x16", 1, (16, 64), 64, True, 16),
        ("ecp5_32x32", 1, (14, 14), 64, True, 14),
        ("zu_64x64", 2, (14, 14), 64, True, 28),
        ("zu_64x64", 2, (16, 16), 32, True, None),
    ],
)
def test_results_are_those_of_the_reference(
    name: str, heads: int, sides: tuple[int, int], channels: int, relative: bool, queries: int | None, attention_results
) -> None:
    for v_zero in (9, 15):
        stage = random_stage(heads, sides, channels, relative, v_zero)
        operator = lowered(name, stage, queries)
        memory, _ = run("fsim", operator, stage)
        np.testing.assert_array_equal(attention_results(operator, memory), expected(stage))


@pytest.mark.parametrize(
    ("heads", "sides", "channels", "queries", "v_zero", "least_busy"),
    [
        (2, (12, 12), 16, 12, 9, 0.9),
        (2, (12, 12), 16, 12, 15, 0.9),
        (1, (8, 8), 8, 4, 0, 0),
        (1, (16, 16), 16, None, 0, 0.8),
        (2, (8, 7), 6, None, 15, 0),
    ],
)
def test_the_rtl_agrees_with_the_reference_and_in_every_counter_and_its_array_is_busy(
    heads: int,
    sides: tuple[int, int],
    channels: int,
    queries: int | None,
    v_zero: int,
    least_busy: float,
    attention_results,
) -> None:
    stage = random_stage(heads, sides, channels, v_zero=v_zero)
    operator = lowered("sim_4x4", stage, queries)
    memory, counters = run("rtl", operator, stage)
    simulated, estimated = run("fsim", operator, stage)
    assert memory == simulated
    np.testing.assert_array_equal(attention_results(operator, memory), expected(stage))
    assert counters == estimated
    assert counters["array_busy"] / counters["cycles"] > least_busy


def test_the_largest_plan_takes_as_many_queries_as_fit() -> None:
    assert largest_plan(named("ecp5_16x16"), random_stage(1, (14, 14), 64)).rows == 28
    assert largest_plan(named("ecp5_16x16"), random_stage(1, (64, 64), 64)).rows == 16


@pytest.mark.parametrize(
    ("sides", "channels", "queries", "message"),
    [
        ((64, 64), 16, 4, "lgt"),
        ((14, 14), 64, 28, "wgt"),
        ((14, 14), 16, 10, "Tiles of 10 queries do not divide"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    sides: tuple[int, int], channels: int, queries: int, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        AttentionPlan(named("sim_4x4"), random_stage(1, sides, channels), queries)
