"""Layers as instructions, on the numpy model, against integer arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.dependency_tokens import insert_dependency_tokens
from tvm_ahcq.codegen.isa.generated.isa import Gemm
from tvm_ahcq.codegen.isa.layout import code_blocks, pack_codes, unpack_codes
from tvm_ahcq.codegen.lower.address_space import DeviceMemory, move_constants
from tvm_ahcq.codegen.lower.fixed_scales import fraction_bits, stage_reference
from tvm_ahcq.codegen.lower.linear.program import linear_instructions
from tvm_ahcq.codegen.lower.linear.stage import Encoder, LinearStage, SumField, pack_fields
from tvm_ahcq.codegen.lower.linear.tiling import candidates, choose_tiling, tiling_of
from tvm_ahcq.codegen.lower.standalone import standalone
from tvm_ahcq.codegen.lower.tile_space import linear_space
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError

CONFIG = named("sim_4x4")


def random_stage(rng, rows, outputs, groups, encoded, dim=CONFIG.dim) -> LinearStage:
    inputs = sum(groups)
    weight, zero = rng.integers(0, 16, (outputs, inputs)), rng.integers(0, 16, outputs)
    tables = rng.integers(-15, 16, (len(groups), 16))
    assert all(size % dim == 0 for size in groups)
    encoder = random_encoder(rng, len(groups), outputs, 15 * 15 * inputs) if encoded else None
    fields = pack_fields([225 * size for size in groups])
    return LinearStage(rows, weight.astype(np.uint8), zero.astype(np.uint8), groups, tables, fields, encoder)


def halved_stage(rng, rows, outputs, groups, codes, weights) -> LinearStage:
    """A layer whose codes and weights come as so many halves."""
    inputs, dim = sum(groups), CONFIG.dim
    assert all(size % dim == 0 for size in groups)
    weight, zero = rng.integers(0, 16, (outputs, weights * inputs)), rng.integers(0, 16, weights * outputs)
    tables = rng.integers(-255, 256, (codes if codes > 1 else len(groups), 16))
    largest = [256 * codes * size * (15 + 15 * 16 * (weights - 1)) for size in groups]
    fields = pack_fields(largest, weights)
    parts = weight.astype(np.uint8), zero.astype(np.uint8)
    return LinearStage(rows, *parts, groups, tables, fields, None, codes, weights)


def random_encoder(rng, groups, outputs, largest) -> Encoder:
    multiplier, bias = rng.uniform(1e-4, 1e-2, (groups, outputs)), rng.normal(size=outputs)
    bits = fraction_bits(multiplier, bias, np.full(multiplier.shape, largest))
    edges = np.sort(rng.integers(-(2**bits), 2**bits, 31)).astype(np.int32)
    return Encoder(multiplier, bias, bits, edges, rng.integers(0, 16, 32).astype(np.uint8))


def run(instructions, memory: DeviceMemory, inputs: dict[int, bytes], config=CONFIG) -> bytearray:
    """External memory after the program, scratch first."""
    program = standalone(memory, insert_dependency_tokens(instructions, config))
    verify(program.program, config, program.start)
    external = program.image(inputs)
    result = Machine(config, external).run(program.start, program.length)
    assert result.error == "none", result
    return external


def accumulators(external: bytearray, at: int, stage: LinearStage) -> np.ndarray:
    """``(G, rows, N)``, out of their words."""
    shape = stage.fields[-1].word + 1, stage.outputs // CONFIG.dim, stage.rows, CONFIG.dim
    words = np.frombuffer(external, np.int32, int(np.prod(shape)), at).reshape(shape).swapaxes(1, 2)
    left, sums = words.reshape(shape[0], stage.rows, stage.outputs).astype(np.int64), []
    for field in stage.fields:
        value = left[field.word] & (1 << field.bits) - 1
        value = np.where(value >> (field.bits - 1), value - (1 << field.bits), value)
        left[field.word] = (left[field.word] - value) >> field.bits
        sums.append(value)
    return np.stack(sums)


def test_accumulators_of_one_group_and_of_several_equal_integer_arithmetic():
    rng = np.random.default_rng(0)
    for rows, outputs, groups in ((8, 4, (8,)), (72, 28, (8, 4, 12, 4)), (136, 12, (160,)), (64, 40, (4, 300))):
        stage = random_stage(rng, rows, outputs, groups, encoded=False)
        codes = rng.integers(0, 16, (rows, sum(groups))).astype(np.uint8)
        memory = DeviceMemory()
        source, result = memory.scratch(codes.size // 2), memory.scratch(stage.result_bytes())
        instructions = linear_instructions(memory, choose_tiling(CONFIG, stage), source, result)
        external = run(instructions, memory, {source: pack_codes(code_blocks(codes, CONFIG.dim))})
        assert np.array_equal(accumulators(external, result, stage), stage_reference(stage, codes))


@pytest.mark.parametrize(("codes", "weights"), [(2, 1), (1, 2), (2, 2)])
def test_halves_of_codes_and_weights_give_the_sums_of_whole_ones(codes, weights):
    rng = np.random.default_rng(10 * codes + weights)
    for rows, outputs, groups in ((40, 20, (8, 4, 12, 4)), (24, 12, (4, 80))):
        stage = halved_stage(rng, rows, outputs, groups, codes, weights)
        given = rng.integers(0, 16, (rows, codes * sum(groups))).astype(np.uint8)
        expected = stage_reference(stage, given)
        space = linear_space(CONFIG, stage)
        for tile in (space.tiles[0], space.tiles[rng.integers(len(space.tiles))]):
            memory = DeviceMemory()
            source, result = memory.scratch(given.size // 2), memory.scratch(stage.result_bytes())
            instructions = linear_instructions(memory, tiling_of(CONFIG, stage, tile), source, result)
            external = run(instructions, memory, {source: pack_codes(code_blocks(given, CONFIG.dim))})
            assert np.array_equal(accumulators(external, result, stage), expected), tile


def test_the_reference_of_halves_is_arithmetic_on_whole_numbers():
    rng = np.random.default_rng(7)
    codes, weight = rng.integers(0, 256, (8, 12)), rng.integers(-128, 128, (4, 12))
    halves = [np.concatenate([x >> 4, x & 15], 1).astype(np.uint8) for x in (codes, weight + 128)]
    zero, tables = np.repeat([8, 0], 4).astype(np.uint8), np.stack([16 * np.arange(16), np.arange(16)])
    stage = LinearStage(8, halves[1], zero, (8, 4), tables, pack_fields([2**20] * 2, 2), None, 2, 2)
    expected = [codes[:, part] @ weight[:, part].T for part in (slice(8), slice(8, 12))]
    assert np.array_equal(stage_reference(stage, halves[0]), expected)


def test_every_tiling_that_fits_gives_the_same_sums():
    rng = np.random.default_rng(4)
    stage = random_stage(rng, 40, 20, (12, 4, 8), encoded=False)
    codes = rng.integers(0, 16, (40, 24)).astype(np.uint8)
    small = replace(CONFIG, act_depth=256, wgt_depth=160, acc_depth=256, vec_depth=96)
    found = candidates(small, stage)
    for tiling in [*found, *(replace(tiling, chunk=1) for tiling in found if tiling.chunk > 1)]:
        memory = DeviceMemory()
        source, result = memory.scratch(codes.size // 2), memory.scratch(stage.result_bytes())
        instructions = linear_instructions(memory, tiling, source, result)
        external = run(instructions, memory, {source: pack_codes(code_blocks(codes, CONFIG.dim))})
        assert np.array_equal(accumulators(external, result, stage), stage_reference(stage, codes)), tiling
    assert len({(tiling.rows, tiling.blocks, tiling.chunk) for tiling in found}) > 5


@pytest.mark.parametrize("encoded", [False, True])
def test_tiles_of_a_linear_layer_give_the_sums_of_the_default(encoded):
    rng = np.random.default_rng(0)
    stage = random_stage(rng, 48, 28, (12, 4, 8), encoded)
    codes = rng.integers(0, 16, (48, 24)).astype(np.uint8)
    space = linear_space(CONFIG, stage)
    tiles = [space.tiles[i] for i in rng.choice(len(space.tiles), 12, replace=False)]
    assert {tile.columns_first for tile in tiles} == {False, True} and len({tile.ahead for tile in tiles}) > 2
    found = set()
    for tile in tiles:
        memory = DeviceMemory()
        source, result = memory.scratch(codes.size // 2), memory.scratch(stage.result_bytes())
        instructions = linear_instructions(memory, tiling_of(CONFIG, stage, tile), source, result)
        external = run(instructions, memory, {source: pack_codes(code_blocks(codes, CONFIG.dim))})
        found.add(bytes(external[result : result + stage.result_bytes()]))
    assert len(found) == 1
    if encoded:
        stored = unpack_codes(found.pop())
        assert len(np.unique(stored)) > 1
    else:
        assert np.array_equal(accumulators(external, result, stage), stage_reference(stage, codes))


@pytest.mark.parametrize("name", ["sim_4x4", "ecp5_16x16", "ecp5_32x32", "zu_64x64"])
def test_no_shape_needs_more_tokens_or_longer_rows_than_there_are(name):
    config, rng = named(name), np.random.default_rng(5)
    dim = config.dim
    for rows, blocks in ((8, 1), (136, 40)):
        for sizes in ((8,), (2, 2, 2, 2), (1, 1, 1, 20), (5, 1, 1, 1), (1, 1, 6), (48,)):
            inputs = dim * sum(sizes)
            weight = rng.integers(0, 16, (blocks * dim, inputs)).astype(np.uint8)
            groups, tables = tuple(dim * size for size in sizes), np.zeros((len(sizes), 16), int)
            fields = pack_fields([225 * size for size in groups])
            stage = LinearStage(rows, weight, weight[:, 0], groups, tables, fields)
            memory = DeviceMemory()
            source, result = memory.scratch(rows * inputs // 2), memory.scratch(stage.result_bytes())
            instructions = linear_instructions(memory, choose_tiling(config, stage), source, result)
            program = move_constants(insert_dependency_tokens(instructions, config), memory.scratch_bytes)
            verify(program, config, memory.scratch_bytes + len(memory.constants))


def test_as_many_sums_as_fit_share_a_word():
    assert pack_fields([2**14 - 1] * 4) == (
        SumField(0, 0, 15),
        SumField(0, 15, 15),
        SumField(1, 0, 15),
        SumField(1, 15, 15),
    )
    assert pack_fields([100, 100, 100, 100]) == (
        SumField(0, 0, 8),
        SumField(0, 8, 8),
        SumField(0, 16, 8),
        SumField(1, 0, 8),
    )
    assert pack_fields([2**20, 1]) == (SumField(0, 0, 22), SumField(1, 0, 2))  # a mantissa cannot shift by 22
    assert pack_fields([2**16, 1]) == (SumField(0, 0, 18), SumField(0, 18, 2))
    assert pack_fields([2**16, 1], halves=2) == (SumField(0, 0, 18), SumField(1, 0, 2))  # nor by 18 and 4 more


def test_the_codes_of_one_layer_are_the_input_of_the_next():
    rng = np.random.default_rng(1)
    first, second = random_stage(rng, 40, 24, (8, 8), True), random_stage(rng, 40, 8, (24,), False)
    codes = rng.integers(0, 16, (40, 16)).astype(np.uint8)
    memory = DeviceMemory()
    at = [memory.scratch(codes.size // 2), memory.scratch(first.result_bytes()), memory.scratch(second.result_bytes())]
    instructions = linear_instructions(memory, choose_tiling(CONFIG, first), at[0], at[1])
    instructions += linear_instructions(memory, choose_tiling(CONFIG, second), at[1], at[2])
    external = run(instructions, memory, {at[0]: pack_codes(code_blocks(codes, CONFIG.dim))})
    between = stage_reference(first, codes)
    stored = unpack_codes(bytes(external[at[1] : at[1] + between.size // 2])).reshape(-1, 40, CONFIG.dim)
    assert np.array_equal(stored.swapaxes(0, 1).reshape(40, 24), between)
    assert np.array_equal(accumulators(external, at[2], second), stage_reference(second, between))


@pytest.mark.parametrize(
    ("name", "rows", "outputs", "groups"),
    [
        ("sim_4x4", 8, 4, (4,)),
        ("sim_4x4", 200, 40, (256,)),
        ("sim_4x4", 72, 44, (32, 4, 160, 12)),
        ("ecp5_16x16", 136, 80, (64, 448, 16)),
        ("ecp5_16x16", 16, 640, (64,)),  # many short results, more than a token counter holds
        ("ecp5_32x32", 264, 96, (128, 64)),
        ("zu_64x64", 40, 128, (192,)),
    ],
)
def test_codes_on_every_configuration_are_those_of_the_reference(name, rows, outputs, groups):
    config, rng = named(name), np.random.default_rng(rows)
    stage = random_stage(rng, rows, outputs, groups, True, config.dim)
    codes = rng.integers(0, 16, (rows, sum(groups))).astype(np.uint8)
    memory = DeviceMemory()
    source, result = memory.scratch(codes.size // 2), memory.scratch(stage.result_bytes())
    instructions = linear_instructions(memory, choose_tiling(config, stage), source, result)
    external = run(instructions, memory, {source: pack_codes(code_blocks(codes, config.dim))}, config)
    stored = unpack_codes(bytes(external[result : result + stage.result_bytes()])).reshape(-1, rows, config.dim)
    assert np.array_equal(stored.swapaxes(0, 1).reshape(rows, outputs), stage_reference(stage, codes))
    fed = sum(each.rows * each.steps * each.blocks for each in instructions if isinstance(each, Gemm))
    assert fed == rows * outputs * sum(groups) // config.dim**2


def test_codes_are_those_of_real_numbers_but_within_what_fixed_point_rounds():
    rng = np.random.default_rng(2)
    stage = random_stage(rng, 64, 16, (32, 16), encoded=True)
    encoder = stage.encoder
    codes = rng.integers(0, 16, (64, 48)).astype(np.uint8)
    sums = stage_reference(replace(stage, encoder=None), codes)
    parts = sums * encoder.multiplier[:, None]
    real = (parts.sum(0) + encoder.bias) * 2.0**encoder.fraction_bits
    rounding = 3  # half a unit for each group's two parts, and for the bias
    found = stage_reference(stage, codes)
    low, high = (encoder.codes[np.searchsorted(encoder.thresholds, real + sign * rounding)] for sign in (-1, 1))
    certain = low == high
    assert certain.mean() > 0.99 and np.array_equal(found[certain], low[certain])


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(3)
    with pytest.raises(DeviceError, match="multiple of 8"):
        choose_tiling(CONFIG, random_stage(rng, 9, 4, (4,), False))
    with pytest.raises(DeviceError, match="at most 4"):
        choose_tiling(CONFIG, random_stage(rng, 8, 4, (4, 4, 4, 4, 4), False))
    with pytest.raises(DeviceError, match="for the host, not for another layer"):
        choose_tiling(CONFIG, replace(halved_stage(rng, 8, 4, (4,), 2, 1), encoder=random_encoder(rng, 1, 4, 1000)))
    with pytest.raises(DeviceError, match="leave 32 bits"):
        fraction_bits(np.full((1, 1), 1.0), np.zeros(1), np.full((1, 1), 2.0**32))
