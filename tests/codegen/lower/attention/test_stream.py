"""Streamed attention against ``reference.log_attention``, on the functional simulator; cycles against the RTL."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.lower.attention.operator import attention_shape, lower_attention
from tvm_ahcq.codegen.lower.attention.plan import AttentionPlan, AttentionStage, largest_plan
from tvm_ahcq.codegen.lower.standalone import packed_inputs, standalone
from tvm_ahcq.codegen.lower.tiles import AttentionTile
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core import reference


def random_stage(heads: int, sides: tuple[int, int], channels: int, relative: bool = True) -> AttentionStage:
    rng, tokens = np.random.default_rng(sum(sides) + channels), sides[0] * sides[1]
    q, k, v = (UniformParams(bits=4, scale=0.31, zero_point=zero) for zero in (8, 6, 9))
    tables = [rng.normal(size=(2 * side - 1, channels)) if relative else None for side in sides]
    quantizers = AttentionQuantizers(q, k, v, LnqParams(bits=4, alpha=20.0, scale=0.7))
    constants, rel_h, rel_w = attention_constants(
        quantizers, scale=channels**-0.5, head_dim=channels, rel_h=tables[0], rel_w=tables[1]
    )
    return AttentionStage(heads, tokens, tokens, channels, constants, rel_h, rel_w)


def random_codes(stage: AttentionStage) -> np.ndarray:
    """``(3, heads, tokens, channels)``: queries, keys, values."""
    return np.random.default_rng(1).integers(0, 16, (3, stage.heads, stage.queries, stage.channels)).astype(np.uint8)


def expected(stage: AttentionStage, codes: np.ndarray) -> np.ndarray:
    """Integer sums ``(heads, tokens, channels)`` of the reference."""
    sums = []
    for q, k, v in zip(*codes, strict=True):
        operands = reference.attention_operands(q, k, stage.constants, stage.rel_h, stage.rel_w)
        sums.append(operands.astype(np.int64) @ (v.astype(np.int64) - stage.constants.v_zero))
    return np.stack(sums)


def run(backend: str, name: str, stage: AttentionStage, queries: int | None) -> tuple[np.ndarray, dict[str, int]]:
    """Sums ``(heads, tokens, channels)`` and all counters; tiles of so many queries, else the default."""
    config, codes = named(name), random_codes(stage)
    tiles = {}
    if queries is not None:
        plan = AttentionPlan(config, stage, queries)
        tiles = {attention_shape(config, stage): AttentionTile(queries, plan.chunk_rows, plan.lag)}
    shape = stage.heads, stage.queries, stage.keys, stage.channels
    operator = lower_attention(config, shape, stage.constants, stage.rel_h, stage.rel_w, tiles)
    assert operator.runs == 1 and operator.tuned == (queries is not None)
    program, output = standalone(operator.memory, operator.program), operator.output
    memory = program.image(packed_inputs(operator, *codes.reshape(3, -1, stage.channels)))
    places = stage.heads, output.blocks, len(output.row_at), output.dim
    with open_device(backend, config, memory_bytes=len(memory)) as device:
        device.copy_in(0, memory)
        assert device.run(program.start, program.length).error == "none"
        counters, data = device.counters(), device.copy_out(output.address, 4 * int(np.prod(places)))
    sums = np.frombuffer(data, np.int32).reshape(places).swapaxes(1, 2)
    order = [list(output.row_at).index(query) for query in range(stage.queries)]
    return sums.reshape(stage.heads, -1, stage.channels)[:, order], counters


@pytest.mark.parametrize(
    ("name", "heads", "sides", "channels", "relative", "queries"),
    [
        ("sim_4x4", 2, (8, 7), 8, True, None),
        ("sim_4x4", 2, (8, 7), 8, False, None),
        ("sim_4x4", 1, (8, 8), 8, True, 4),
        ("sim_4x4", 3, (12, 12), 16, True, 12),
        ("sim_4x4", 2, (16, 16), 16, True, 16),
        ("sim_4x4", 1, (16, 16), 16, False, 16),
        ("ecp5_16x16", 2, (14, 14), 64, True, 28),
        ("ecp5_16x16", 1, (16, 64), 64, True, 16),
        ("ecp5_32x32", 1, (14, 14), 64, True, 14),
        ("zu_64x64", 2, (14, 14), 64, True, 28),
    ],
)
def test_sums_are_those_of_the_reference(
    name: str, heads: int, sides: tuple[int, int], channels: int, relative: bool, queries: int | None
) -> None:
    stage = random_stage(heads, sides, channels, relative)
    sums, _ = run("fsim", name, stage, queries)
    np.testing.assert_array_equal(sums, expected(stage, random_codes(stage)))


def test_the_rtl_agrees_in_sums_and_in_every_counter_and_its_array_is_busy() -> None:
    stage = random_stage(2, (12, 12), 16)
    sums, counters = run("rtl", "sim_4x4", stage, 12)
    simulated, estimated = run("fsim", "sim_4x4", stage, 12)
    np.testing.assert_array_equal(sums, simulated)
    assert counters == estimated
    assert counters["array_busy"] / counters["cycles"] > 0.9


def test_the_largest_plan_takes_as_many_queries_as_fit() -> None:
    assert largest_plan(named("ecp5_16x16"), random_stage(1, (14, 14), 64)).rows == 28
    assert largest_plan(named("ecp5_16x16"), random_stage(1, (64, 64), 64)).rows == 16


@pytest.mark.parametrize(
    ("sides", "channels", "queries", "message"),
    [
        ((64, 64), 16, 4, "lgt"),
        ((14, 14), 64, 28, "wgt"),
        ((14, 14), 16, 10, "Tiles of 10 queries do not divide"),
        ((14, 14), 6, 28, "blocks of 4 channels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    sides: tuple[int, int], channels: int, queries: int, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        AttentionPlan(named("sim_4x4"), random_stage(1, sides, channels), queries)
