"""Layers of more than 4 bits in the C++ runtime module on the functional simulator, against the host's reference."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.simulator import build
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.generated.isa import Gemm
from tvm_ahcq.codegen.lower.linear.operator import lower_linear
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.program_image import program_image
from tvm_ahcq.codegen.lower.tiles import LinearTile
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.ffi import ahcq_library
from tvm_ahcq.tune.accelerator.programs import TileTask

CONFIGS = [named("sim_4x4"), named("ecp5_16x16")]


def results(config, lowered: OffloadedOp, codes: np.ndarray, device: str = "fsim", data: bytes | None = None):
    """Of the operator on a device: float32, and its counters."""
    ffi = ahcq_library()
    loaded = ffi.get_global_func("ahcq.accelerator_module")(data or program_image(config, {"layer": lowered}))
    loaded["ahcq.configure"](device, "raise", 60.0)
    result = np.zeros((len(codes), len(lowered.output.bias)), np.float32)
    loaded["layer"](ffi.from_dlpack(codes), ffi.from_dlpack(result))
    return result, [list(entry[1:]) for entry in loaded["ahcq.counters"]()]


def values(bits: int) -> np.ndarray | None:
    """As the partition passes them."""
    return None if bits == 4 else np.arange(2**bits)


def extreme_codes(rng, shape: tuple[int, int], bits: int) -> np.ndarray:
    codes = rng.integers(0, 2**bits, shape).astype(np.uint8)
    codes[0], codes[1] = 0, 2**bits - 1
    return codes


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize(("codes", "weights"), [(8, 8), (8, 4), (4, 8), (6, 6), (5, 6)])
def test_layers_of_more_bits_are_the_hosts_in_every_bit(layer, host_linear, config, codes, weights):
    rng = np.random.default_rng(codes + 16 * weights)
    top = 2**codes - 1
    for rows, outputs, sizes, zeros in ((37, 21, (12,), (top,)), (72, 48, (40, 8, 24, 32), (top // 2, 0, top, 3))):
        constants = layer(rng, outputs, sizes, zeros, weights)
        given = extreme_codes(rng, (rows, sum(sizes)), codes)
        lowered = lower_linear(config, rows, constants, values(codes))
        stage_halves = (codes > 4) + 1, (weights > 4) + 1
        assert (lowered.shapes[0].code_halves, lowered.shapes[0].weight_halves) == stage_halves
        assert np.array_equal(results(config, lowered, given)[0], host_linear(given, constants))


def test_the_colours_of_a_picture_are_three_groups_that_need_two_tables(layer, host_linear):
    rng, config = np.random.default_rng(3), CONFIGS[1]
    constants = layer(rng, 24, (64, 64, 64), (124, 116, 104), 8)
    given = extreme_codes(rng, (64, 192), 8)
    lowered = lower_linear(config, 64, constants, values(8))
    assert np.array_equal(results(config, lowered, given)[0], host_linear(given, constants))
    decoded = {each.decode for each in lowered.instructions if isinstance(each, Gemm)}
    assert decoded == {0, 1}
    fed = sum(each.rows * each.steps * each.blocks for each in lowered.instructions if isinstance(each, Gemm))
    assert fed == 4 * 64 * (192 // 16) * 2  # each half of a code meets each half of a weight


def test_a_table_of_more_than_sixteen_operands_goes_as_halves_and_no_other_value_does(layer, host_linear):
    rng, config = np.random.default_rng(4), CONFIGS[0]
    constants = layer(rng, 16, (32,), (0,), 4)
    operands = np.sort(rng.choice(256, 64, replace=False)).astype(np.uint8)
    lowered = lower_linear(config, 16, constants, operands)
    given = rng.choice(operands, (16, 32))
    assert np.array_equal(results(config, lowered, given)[0], host_linear(given, constants))
    given[3, 5] = next(value for value in range(256) if value not in operands)
    with pytest.raises(ValueError, match="no code of its quantizer"):
        results(config, lowered, given)


def test_a_tile_that_tuning_chose_gives_the_same_result_and_its_program_is_the_compilers(layer, host_linear):
    rng, config = np.random.default_rng(5), CONFIGS[0]
    constants = layer(rng, 24, (20, 12), (7, 200), 8)
    given = extreme_codes(rng, (48, 32), 8)
    (shape,) = lower_linear(config, 48, constants, values(8)).shapes
    tile = LinearTile(16, 2, 2, 1, columns_first=True)
    tuned = lower_linear(config, 48, constants, values(8), {shape: tile})
    assert tuned.tuned and np.array_equal(results(config, tuned, given)[0], host_linear(given, constants))
    measured = TileTask(config, shape).program(tile)
    assert (measured.length, measured.runs) == (len(tuned.program) // 32, tuned.runs)
    assert str(shape) == "linear 48 x 28 -> 24, 2 groups, codes in halves, weights in halves"


def test_several_runs_of_one_program_and_the_simulated_rtl_give_the_same_bits(layer, host_linear):
    rng, config = np.random.default_rng(6), CONFIGS[0]
    constants = layer(rng, 260, (300, 212), (7, 200), 8)
    given = extreme_codes(rng, (300, 512), 8)
    lowered = lower_linear(config, 300, constants, values(8))
    assert lowered.runs > 1
    assert np.array_equal(results(config, lowered, given)[0], host_linear(given, constants))
    small = layer(rng, 24, (12, 8), (3, 90), 8)
    lowered, given = lower_linear(config, 24, small, values(8)), extreme_codes(rng, (24, 20), 8)
    simulated, rtl = (results(config, lowered, given, device) for device in ("fsim", f"rtl:{build(config)}"))
    assert np.array_equal(simulated[0], rtl[0]) and simulated[1] == rtl[1]


@pytest.mark.parametrize("version", [3, 5])
def test_programs_of_another_format_are_refused(layer, version):
    rng, config = np.random.default_rng(8), CONFIGS[0]
    lowered = lower_linear(config, 8, layer(rng, 8, (8,), (3,), 4))
    data, given = program_image(config, {"layer": lowered}), np.zeros((8, 8), np.uint8)
    ahcq_library().register_error("DeviceError", DeviceError)
    message = f"format {version}; this library reads format 4; compile the model again"
    with pytest.raises(DeviceError, match=message):
        results(config, lowered, given, data=data[:8] + struct.pack("<I", version) + data[12:])
