"""Programs of linear layers, on the numpy model, against the integer semantics of the quantizers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.linear import Linear, linear_program
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.hardware.model.state import shift_round
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.layout import fixed_scale, unpack_codes
from tvm_ahcq.codegen.isa.memory_image import MemoryImage, instruction_count
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import grouped_accumulators


def random_layer(seed: int, rows: int, outputs: int, sizes: tuple[int, ...]) -> Linear:
    rng = np.random.default_rng(seed)
    inputs, groups = sum(sizes), len(sizes)
    return Linear(
        codes=rng.integers(0, 16, (rows, inputs)).astype(np.uint8),
        weight=rng.integers(0, 16, (outputs, inputs)).astype(np.uint8),
        zero=rng.integers(0, 16, outputs).astype(np.uint8),
        group_sizes=sizes,
        tables=np.arange(16) - rng.integers(0, 16, (groups, 1)),
        multiplier=rng.uniform(1e-4, 1e-2, (groups, outputs)),
        bias=rng.normal(size=outputs),
        fraction_bits=12,
        thresholds=np.sort(rng.integers(-(2**15), 2**15, 31)).astype(np.int32),
        out_codes=rng.integers(0, 16, 32),
    )


def expected(layer: Linear) -> np.ndarray:
    """Codes ``(M, N)``: the reference's accumulators, the fixed-point scales of the specification."""
    weight = layer.weight.astype(int) - layer.zero.astype(int)[:, None]
    first = layer.tables[:, 0]  # affine tables: the code itself, and the zero point as a correction
    exact = grouped_accumulators(layer.codes, weight.astype(np.int8), layer.group_sizes).astype(np.int64)
    y = np.rint(layer.bias * 2.0**layer.fraction_bits).astype(np.int64)
    bounds = np.cumsum([0, *layer.group_sizes])
    for group, (low, high) in enumerate(pairwise(bounds)):
        scales = fixed_scale(layer.multiplier[group], layer.fraction_bits).astype(np.int64)
        acc = exact[group] + first[group] * weight[:, low:high].sum(1)
        y = y + shift_round(acc * (scales & 0x3FFFFF), scales >> 22)
    return layer.out_codes[np.searchsorted(layer.thresholds, y, side="left")]


@pytest.mark.parametrize(
    ("name", "rows", "outputs", "sizes"),
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
def test_codes_are_those_of_the_reference(name: str, rows: int, outputs: int, sizes: tuple[int, ...]) -> None:
    config, layer, image = named(name), random_layer(rows, rows, outputs, sizes), MemoryImage()
    program, address = linear_program(config, image, layer)
    start = image.place(program)
    memory = image.finish()
    outcome = Machine(config, memory).run(start, instruction_count(program))
    assert outcome.error == "none"
    assert outcome.counters["array_busy"] == rows * outputs * sum(sizes) // config.dim**2
    data = unpack_codes(bytes(memory[address : address + rows * outputs // 2]))
    codes = data.reshape(-1, rows, config.dim).swapaxes(0, 1).reshape(rows, outputs)
    np.testing.assert_array_equal(codes, expected(layer))


def test_a_layer_that_does_not_fit_is_refused() -> None:
    layer = random_layer(0, 64, 64, (64, 64))
    with pytest.raises(
        DeviceError, match="2 groups and 4 column blocks are too many for ecp5_16x16, with tiles of 256"
    ):
        linear_program(named("ecp5_16x16"), MemoryImage(), random_layer(0, 256, 64, (64, 64)), rows=256)
    with pytest.raises(DeviceError, match="pad them"):
        linear_program(named("ecp5_16x16"), MemoryImage(), replace(layer, group_sizes=(63, 65)))
