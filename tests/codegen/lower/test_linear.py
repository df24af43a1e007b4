"""Layers as instructions, on the numpy model, against integer arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.config import named
from tvm_ahcq.codegen.hardware.layout import code_blocks, pack_codes, unpack_codes
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.hardware.program import INSTRUCTION_BYTES
from tvm_ahcq.codegen.hardware.schedule import synchronise
from tvm_ahcq.codegen.lower.fixed import fraction_bits, stage_reference
from tvm_ahcq.codegen.lower.linear import Encoder, LinearStage, choose_tiling, linear_entries
from tvm_ahcq.codegen.lower.memory import DeviceMemory, move_constants
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError

CONFIG = named("sim_4x4")


def random_stage(rng, rows, outputs, groups, encoded) -> LinearStage:
    inputs, dim = sum(groups), CONFIG.dim
    weight, zero = rng.integers(0, 16, (outputs, inputs)), rng.integers(0, 16, outputs)
    tables = rng.integers(-15, 16, (len(groups), 16))
    assert all(size % dim == 0 for size in groups)
    encoder = random_encoder(rng, len(groups), outputs, 15 * 15 * inputs) if encoded else None
    return LinearStage(rows, weight.astype(np.uint8), zero.astype(np.uint8), groups, tables, encoder)


def random_encoder(rng, groups, outputs, largest) -> Encoder:
    multiplier, bias = rng.uniform(1e-4, 1e-2, (groups, outputs)), rng.normal(size=outputs)
    bits = fraction_bits(multiplier, bias, np.full(multiplier.shape, largest))
    edges = np.sort(rng.integers(-(2**bits), 2**bits, 31)).astype(np.int32)
    return Encoder(multiplier, bias, bits, edges, rng.integers(0, 16, 32).astype(np.uint8))


def run(entries, memory: DeviceMemory, inputs: dict[int, bytes]) -> bytearray:
    """External memory after the program, scratch first."""
    base = -(-memory.scratch_bytes // 64) * 64
    program = move_constants(synchronise(entries, CONFIG), base)
    verify(program, CONFIG, base + len(memory.constants))
    at = base + len(memory.constants)
    external = bytearray(bytes(base) + memory.constants + program)
    for address, data in inputs.items():
        external[address : address + len(data)] = data
    result = Machine(CONFIG, external).run(at, len(program) // INSTRUCTION_BYTES)
    assert result.error == "none", result
    return external


def accumulators(external: bytearray, at: int, stage: LinearStage) -> np.ndarray:
    shape = len(stage.group_sizes), stage.outputs // CONFIG.dim, stage.rows, CONFIG.dim
    sums = np.frombuffer(external, np.int32, int(np.prod(shape)), at).reshape(shape)
    return sums.swapaxes(1, 2).reshape(shape[0], stage.rows, stage.outputs)


def test_accumulators_of_one_group_and_of_several_equal_integer_arithmetic():
    rng = np.random.default_rng(0)
    for rows, outputs, groups in ((8, 4, (8,)), (72, 28, (8, 4, 12, 4)), (136, 12, (160,)), (64, 40, (4, 300))):
        stage = random_stage(rng, rows, outputs, groups, encoded=False)
        codes = rng.integers(0, 16, (rows, sum(groups))).astype(np.uint8)
        memory = DeviceMemory()
        source, result = memory.scratch(codes.size // 2), memory.scratch(stage.result_bytes())
        entries = linear_entries(memory, choose_tiling(CONFIG, stage), source, result)
        external = run(entries, memory, {source: pack_codes(code_blocks(codes, CONFIG.dim))})
        assert np.array_equal(accumulators(external, result, stage), stage_reference(stage, codes))


def test_the_codes_of_one_layer_are_the_input_of_the_next():
    rng = np.random.default_rng(1)
    first, second = random_stage(rng, 40, 24, (8, 8), True), random_stage(rng, 40, 8, (24,), False)
    codes = rng.integers(0, 16, (40, 16)).astype(np.uint8)
    memory = DeviceMemory()
    at = [memory.scratch(codes.size // 2), memory.scratch(first.result_bytes()), memory.scratch(second.result_bytes())]
    entries = linear_entries(memory, choose_tiling(CONFIG, first), at[0], at[1])
    entries += linear_entries(memory, choose_tiling(CONFIG, second), at[1], at[2])
    external = run(entries, memory, {at[0]: pack_codes(code_blocks(codes, CONFIG.dim))})
    between = stage_reference(first, codes)
    stored = unpack_codes(bytes(external[at[1] : at[1] + between.size // 2])).reshape(-1, 40, CONFIG.dim)
    assert np.array_equal(stored.swapaxes(0, 1).reshape(40, 24), between)
    assert np.array_equal(accumulators(external, at[2], second), stage_reference(second, between))


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
    with pytest.raises(DeviceError, match="leave 32 bits"):
        fraction_bits(np.full((1, 1), 1.0), np.zeros(1), np.full((1, 1), 2.0**32))
