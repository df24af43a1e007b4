"""Layers as instructions, on the numpy model, against integer arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.config import named
from tvm_ahcq.codegen.hardware.layout import code_blocks, pack_codes, unpack_codes
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.hardware.program import INSTRUCTION_BYTES
from tvm_ahcq.codegen.hardware.schedule import synchronise
from tvm_ahcq.codegen.lower.fixed import fraction_bits, stage_reference
from tvm_ahcq.codegen.lower.linear import LinearStage, choose_tiling, linear_entries
from tvm_ahcq.codegen.lower.memory import DeviceMemory, move_constants
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError

CONFIG = named("sim_4x4")


def random_stage(rng, rows, outputs, groups, encoded) -> LinearStage:
    inputs, dim = sum(groups), CONFIG.dim
    weight, zero = rng.integers(0, 16, (outputs, inputs)), rng.integers(0, 16, outputs)
    tables = rng.integers(-15, 16, (len(groups), 16))
    multiplier, bias = rng.uniform(1e-4, 1e-2, (len(groups), outputs)), rng.normal(size=outputs)
    bits = fraction_bits(multiplier, bias, np.full(multiplier.shape, 15 * 15 * inputs))
    edges = np.sort(rng.integers(-(2**bits), 2**bits, 31)).astype(np.int32) if encoded else None
    codes = rng.integers(0, 16, 32).astype(np.uint8) if encoded else None
    assert all(size % dim == 0 for size in groups)
    return LinearStage(rows, weight.astype(np.uint8), zero.astype(np.uint8), groups, tables, multiplier, bias, bits,
                       edges, codes)  # fmt: skip


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


def test_sums_of_one_group_and_of_several_equal_integer_arithmetic():
    rng = np.random.default_rng(0)
    for rows, outputs, groups in ((8, 4, (8,)), (72, 28, (8, 4, 12, 4)), (136, 12, (160,)), (64, 40, (4, 300))):
        stage = random_stage(rng, rows, outputs, groups, encoded=False)
        codes = rng.integers(0, 16, (rows, sum(groups))).astype(np.uint8)
        memory = DeviceMemory()
        source, result = memory.scratch(codes.size // 2), memory.scratch(stage.result_bytes())
        entries = linear_entries(memory, choose_tiling(CONFIG, stage), source, result)
        external = run(entries, memory, {source: pack_codes(code_blocks(codes, CONFIG.dim))})
        found = np.frombuffer(external, np.int32, rows * outputs, result).reshape(-1, rows, CONFIG.dim)
        assert np.array_equal(found.swapaxes(0, 1).reshape(rows, outputs), stage_reference(stage, codes))


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
    found = np.frombuffer(external, np.int32, 40 * 8, at[2]).reshape(-1, 40, CONFIG.dim)
    assert np.array_equal(found.swapaxes(0, 1).reshape(40, 8), stage_reference(second, between))


def test_fixed_point_sums_are_the_real_ones_within_what_their_bits_allow():
    rng = np.random.default_rng(2)
    stage = random_stage(rng, 64, 16, (32, 16), encoded=False)
    codes = rng.integers(0, 16, (64, 48)).astype(np.uint8)
    weight = stage.weight.astype(float) - stage.zero[:, None]
    parts = [
        table[codes[:, low:high]] @ weight[:, low:high].T * scale
        for table, scale, low, high in zip(stage.tables, stage.multiplier, (0, 32), (32, 48), strict=True)
    ]
    error = stage_reference(stage, codes) / 2.0**stage.fraction_bits - (sum(parts) + stage.bias)
    assert np.abs(error).max() <= 2 * 2.0**-stage.fraction_bits + 2.0**-21 * np.abs(parts).sum(0).max()


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(3)
    with pytest.raises(DeviceError, match="multiple of 8"):
        choose_tiling(CONFIG, random_stage(rng, 9, 4, (4,), False))
    with pytest.raises(DeviceError, match="at most 4"):
        choose_tiling(CONFIG, random_stage(rng, 8, 4, (4, 4, 4, 4, 4), False))
    with pytest.raises(DeviceError, match="leave 32 bits"):
        fraction_bits(np.full((1, 1), 1.0), np.zeros(1), np.full((1, 1), 2.0**32))
