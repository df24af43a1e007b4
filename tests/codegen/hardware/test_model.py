"""The numpy model against the integer semantics of the quantizers."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.isa.generated.isa import Gemm, Load, Scale, Store
from tvm_ahcq.codegen.isa.layout import (
    code_blocks,
    decode_table,
    encode_table,
    fixed_scale,
    fixed_thresholds,
    pack_codes,
    planes,
    unpack_codes,
    weight_tiles,
)
from tvm_ahcq.codegen.isa.memory_image import MemoryImage
from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.quantizers.core.intervals import interval_encoder

FRACTION = 12
CONFIGS = [named("sim_4x4"), named("ecp5_16x16")]


def load_codes(program, image: MemoryImage, memory: str, blocks: np.ndarray, sp: int = 0) -> None:
    """LOAD of contiguous words."""
    data = pack_codes(blocks)
    data += bytes(-len(data) % 8)
    program.add(Load(memory=memory, rows=1, length=len(data) // 8, sp=sp, address=image.place(data)))


def load_numbers(program, image: MemoryImage, memory: str, values: np.ndarray, sp: int = 0) -> None:
    data = np.asarray(values, np.int32).tobytes()
    program.add(Load(memory=memory, rows=1, length=len(data) // 8, sp=sp, address=image.place(data)))


def run(config: Config, image: MemoryImage, program) -> tuple[bytearray, Machine]:
    start = image.place(program.finish())
    memory = image.finish()
    machine = Machine(config, memory)
    assert machine.run(start, len(program)).error == "none"
    return memory, machine


def accumulators(machine: Machine, rows: int, blocks: int, at: int = 0) -> np.ndarray:
    """``(rows, blocks * dim)`` of contiguous column blocks."""
    return np.concatenate([machine.state.acc[at + b * rows : at + (b + 1) * rows] for b in range(blocks)], 1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_grouped_linear_has_the_references_accumulators_and_its_value_within_rounding(
    config: Config, serial_program
) -> None:
    rng = np.random.default_rng(0)
    dim, rows, outputs = config.dim, 12, 2 * config.dim
    sizes = [2 * dim, dim, 3 * dim]
    inputs = sum(sizes)
    codes = rng.integers(0, 16, (rows, inputs)).astype(np.uint8)
    weight, zero = rng.integers(0, 16, (outputs, inputs)), rng.integers(0, 16, outputs)
    points, multiplier = np.array([3, 0, 15]), rng.uniform(1e-4, 1e-2, (3, outputs))
    bias = rng.normal(size=outputs)
    image, program = MemoryImage(), serial_program
    load_codes(program, image, "act", code_blocks(codes, dim))
    load_codes(program, image, "wgt", weight_tiles(weight.astype(np.uint8), dim))
    zeros_at = inputs * outputs // dim
    load_codes(program, image, "wgt", zero.astype(np.uint8), sp=zeros_at)
    load_numbers(program, image, "decode", np.concatenate([decode_table(np.arange(16) - p) for p in points]))
    load_numbers(program, image, "vec", fixed_scale(multiplier, FRACTION))
    load_numbers(program, image, "vec", np.rint(bias * 2**FRACTION), sp=6)
    exact = reference.grouped_accumulators(codes, (weight - zero[:, None]).astype(np.int8), sizes)
    correction = np.stack(
        [
            -point * (weight - zero[:, None])[:, low : low + size].sum(1)
            for point, low, size in zip(points, np.cumsum([0, *sizes]), sizes, strict=False)
        ]
    )
    y_at, step, captured = 8, 0, []
    for group, size in enumerate(sizes):
        program.add(
            Gemm(
                rows=rows,
                steps=size // dim,
                blocks=2,
                act=step * rows,
                act_stride=rows,
                wgt=step * dim,
                wgt_stride=dim,
                wgt_block=inputs,
                zero=zeros_at,
                zero_vector=1,
                acc_block=rows,
                decode=group,
            )
        )
        program.add(
            Scale(
                memory="vec",
                rows=rows,
                blocks=2,
                acc_block=rows,
                mult=2 * group,
                add_mode=2 if group else 1,
                add=y_at if group else 6,
                add_block=rows,
                dst=y_at,
                dst_block=rows,
            )
        )
        step += size // dim
    out = image.reserve(2 * rows * dim * 4)
    program.add(Store(memory="vec", rows=1, length=rows * dim, sp=y_at, address=out))
    memory, machine = run(config, image, program)
    captured = accumulators(machine, rows, 2)
    np.testing.assert_array_equal(captured, exact[2] + correction[2])
    y = np.frombuffer(memory, np.int32, 2 * rows * dim, out).reshape(2, rows, dim).swapaxes(0, 1).reshape(rows, -1)
    centred = (weight - zero[:, None]).astype(np.int8)
    want = reference.grouped_linear(codes, centred, sizes, multiplier, correction, bias)
    # half a unit of bias and of each group, and the 21 bits of a mantissa
    room = (0.5 + 3 * 0.5) / 2**FRACTION + np.abs(multiplier[:, None] * (exact + correction[:, None])).sum(0) * 2.0**-20
    assert (np.abs(y / 2**FRACTION - want) <= room + 1e-5).all()


def test_eight_bit_codes_are_two_planes_into_one_accumulator(serial_program) -> None:
    config, rng = named("sim_4x4"), np.random.default_rng(1)
    codes = rng.integers(0, 256, (8, 16)).astype(np.uint8)
    weight = rng.integers(0, 16, (4, 16)).astype(np.uint8)
    image, program = MemoryImage(), serial_program
    for plane, table, sp in zip(planes(codes), (16 * np.arange(16) - 131, np.arange(16)), (0, 64), strict=True):
        load_codes(program, image, "act", code_blocks(plane, 4), sp=sp)
        load_numbers(program, image, "decode", decode_table(table), sp=0 if sp == 0 else 8)
    load_codes(program, image, "wgt", weight_tiles(weight, 4))
    for plane in range(2):
        program.add(
            Gemm(
                rows=8,
                steps=4,
                blocks=1,
                act=64 * plane,
                act_stride=8,
                wgt_stride=4,
                zero=7,
                decode=plane,
                accumulate=plane,
            )
        )
    _, machine = run(config, image, program)
    want = (codes.astype(int) - 131) @ (weight.astype(int) - 7).T
    np.testing.assert_array_equal(machine.state.acc[:8], want)


def test_gelu_and_hluq_are_one_interval_table_and_its_codes_feed_the_next_gemm(serial_program) -> None:
    config, rng = named("sim_4x4"), np.random.default_rng(2)
    book = HluqParams(bits=4, log_levels=4, step=3, delta=0.02, offset=-0.17).codebook()
    thresholds, operands = interval_encoder(book, "gelu")
    codes = np.array([int(np.flatnonzero(book.table == operand)[0]) for operand in operands])
    act = rng.integers(0, 16, (32, 8)).astype(np.uint8)
    weight = rng.integers(0, 16, (4, 8)).astype(np.uint8)
    image, program = MemoryImage(), serial_program
    load_codes(program, image, "act", code_blocks(act, 4))
    load_codes(program, image, "wgt", weight_tiles(weight, 4))
    load_numbers(program, image, "decode", np.concatenate([decode_table(np.arange(16) - 8), decode_table(book.table)]))
    load_numbers(program, image, "encode", encode_table(fixed_thresholds(thresholds, FRACTION), codes))
    load_numbers(program, image, "vec", fixed_scale(np.full(4, 0.011), FRACTION))
    program.add(Gemm(rows=32, steps=2, blocks=1, act_stride=32, wgt_stride=4, zero=8))
    program.add(Scale(memory="out", rows=32, blocks=1))
    program.add(Scale(memory="act", rows=32, blocks=1, dst=256))
    program.add(Gemm(rows=32, steps=1, blocks=1, act=256, wgt_stride=4, zero=8, acc=64, decode=1))
    result = image.reserve(64)
    program.add(Store(memory="out", rows=1, length=8, address=result))
    memory, machine = run(config, image, program)
    acc = (act.astype(int) - 8) @ (weight.astype(int) - 8).T
    scales = int(fixed_scale(np.array(0.011), FRACTION))
    y = reference.rounding_shift(acc * (scales & 0x3FFFFF), scales >> 22)
    want = reference.encode_intervals((y / 2**FRACTION).astype(np.float32), thresholds, operands)
    stored = unpack_codes(bytes(memory[result : result + 64])).reshape(32, 4)
    np.testing.assert_array_equal(book.table[stored], want)
    np.testing.assert_array_equal(machine.state.acc[64:96], want @ (weight[:, :4].astype(int) - 8).T)


def test_residual_add_saturates(serial_program) -> None:
    config = named("sim_4x4")
    image, program = MemoryImage(), serial_program
    load_codes(program, image, "act", np.full((1, 4, 4), 15, np.uint8))
    load_codes(program, image, "wgt", np.full((1, 1, 4, 4), 15, np.uint8))
    load_numbers(program, image, "decode", decode_table(np.arange(16)))
    residual = np.arange(16).reshape(4, 4) * 2**27 + 2**27 - 1
    load_numbers(program, image, "vec", np.concatenate([np.full((1, 4), 2**16), residual]))
    program.add(Gemm(rows=4, steps=1, blocks=1))
    program.add(Scale(memory="vec", rows=4, blocks=1, add_mode=2, add=1, dst=8))
    _, machine = run(config, image, program)
    want = np.minimum(900 * 2**16 + residual, 2**31 - 1)
    assert want.max() == 2**31 - 1
    np.testing.assert_array_equal(machine.state.vec[8:12], want)
