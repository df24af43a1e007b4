"""Offloaded operators in the C++ runtime module on the functional simulator, against the host's integer reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.simulator import build
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.dependency_tokens import dependency_tokens
from tvm_ahcq.codegen.isa.generated.isa import Gemm, Load, Store
from tvm_ahcq.codegen.lower.attention.operator import lower_attention
from tvm_ahcq.codegen.lower.linear.layer import rows_of_a_run
from tvm_ahcq.codegen.lower.linear.operator import lower_linear, lower_mlp
from tvm_ahcq.codegen.lower.linear.stage import SumField
from tvm_ahcq.codegen.lower.program_image import program_image
from tvm_ahcq.codegen.lower.tiles import AttentionTile, LinearTile
from tvm_ahcq.errors import DeviceError, TuningError
from tvm_ahcq.quantizers.core.reference import (
    AttentionConstants,
    attention_logit_scale,
    encode_intervals,
    log_attention,
)
from tvm_ahcq.runtime.ffi import ahcq_library
from tvm_ahcq.runtime.operator_shapes import LinearShape

CONFIGS = [named("sim_4x4"), named("ecp5_16x16")]


def picture_heads(
    rng, channels: int, sides: tuple[int, int], v_zero: int = 9
) -> tuple[AttentionConstants, list[np.ndarray]]:
    """Constants, and tables of relative positions."""
    scale = attention_logit_scale((225 * channels, 6e-3), (15 * 127 * channels, 4e-4, 3e-4))
    thresholds = np.sort(rng.choice(9000, 15, replace=False))[::-1].astype(np.int32)
    table = np.concatenate([[0], np.sort(rng.integers(1, 256, 15))]).astype(np.uint8)
    constants = AttentionConstants(
        7, 6, v_zero, **scale, log_thresholds=thresholds, table=table, out_scale=np.float32(0.31), row_relative=True
    )
    return constants, [rng.integers(-127, 128, (2 * side - 1, channels)).astype(np.int8) for side in sides]


def module(config, functions, device="fsim", on_error="raise", seconds=60.0):
    loaded = ahcq_library().get_global_func("ahcq.accelerator_module")(program_image(config, functions))
    loaded["ahcq.configure"](device, on_error, seconds)
    return loaded


def call(function, inputs, shape) -> np.ndarray:
    ffi, result = ahcq_library(), np.zeros(shape, np.float32)
    function(*(ffi.from_dlpack(np.ascontiguousarray(x)) for x in inputs), ffi.from_dlpack(result))
    return result


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_linear_layers_are_the_hosts_in_every_bit(layer, host_linear, config):
    rng = np.random.default_rng(0)
    for rows, outputs, sizes, zeros in ((37, 21, (12,), (7,)), (130, 48, (40, 8, 24, 32), (3, 0, 15, 8))):
        constants = layer(rng, outputs, sizes, zeros)
        codes = rng.integers(0, 16, (rows, sum(sizes))).astype(np.uint8)
        function = module(config, {"layer": lower_linear(config, rows, constants)})["layer"]
        expected = host_linear(codes, constants)
        assert np.array_equal(call(function, [codes], (rows, outputs)), expected)


def test_operands_of_a_table_become_codes_and_any_other_value_is_an_error(layer, host_linear):
    rng, config = np.random.default_rng(8), CONFIGS[1]
    constants = layer(rng, 16, (32,), (0,))
    operands = np.array([0, 3, 3, 17, 200, 255], np.uint8)
    function = module(config, {"layer": lower_linear(config, 16, constants, operands)})["layer"]
    values = rng.choice(operands, (16, 32))
    assert np.array_equal(call(function, [values], (16, 16)), host_linear(values, constants))
    values[3, 5] = 4
    with pytest.raises(ValueError, match="no code of its quantizer"):
        call(function, [values], (16, 16))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_codes_stay_on_the_accelerator_between_two_layers(layer, host_linear, config):
    rng = np.random.default_rng(2)
    first, second = layer(rng, 40, (24, 16), (4, 11)), layer(rng, 20, (40,), (0,))
    thresholds = np.sort(rng.normal(size=31)).astype(np.float32)
    operands = rng.choice(rng.integers(0, 256, 16), 32).astype(np.uint8)
    codes = rng.integers(0, 16, (48, 40)).astype(np.uint8)
    function = module(config, {"mlp": lower_mlp(config, 48, first, thresholds, operands, second)})["mlp"]
    found = call(function, [codes], (48, 20))
    expected = host_linear(encode_intervals(host_linear(codes, first), thresholds, operands), second)
    # the encoder between the layers sees fixed-point numbers: a code may differ where a sum lies on a threshold
    assert (found == expected).all(1).mean() > 0.9


def test_a_run_takes_the_same_rows_through_both_of_two_layers(layer):
    rng, config, rows = np.random.default_rng(12), CONFIGS[0], 208
    first, second = layer(rng, 400, (420,), (4,)), layer(rng, 400, (400,), (0,))
    alone = [lower_linear(config, rows, each).inputs[0].rows for each in (first, second)]
    assert alone[0] < alone[1] == rows
    encoder = np.linspace(-2, 2, 15, dtype=np.float32), np.arange(16, dtype=np.uint8)
    both = lower_mlp(config, rows, first, *encoder, second)
    fed = sum(each.rows * each.steps * each.blocks for each in both.instructions if isinstance(each, Gemm))
    assert fed == alone[0] * (105 * 100 + 100 * 100)  # steps and column blocks of each


def test_a_layer_of_many_rows_is_several_runs_of_one_program(layer, host_linear):
    rng, config, rows = np.random.default_rng(10), CONFIGS[0], 300
    constants = layer(rng, 510, (640, 100, 284), (3, 0, 15))
    lowered = lower_linear(config, rows, constants)
    codes = rng.integers(0, 16, (rows, 1024)).astype(np.uint8)
    assert lowered.runs > 1 and lowered.runs * lowered.inputs[0].rows > rows  # the last has padding
    loaded = module(config, {"layer": lowered})
    assert np.array_equal(call(loaded["layer"], [codes], (rows, 510)), host_linear(codes, constants))
    (entry,) = loaded["ahcq.counters"]()
    counters = dict(zip(loaded["ahcq.counter_names"](), entry[2:], strict=False))
    assert entry[1] == 1 and counters["array_busy"] == lowered.runs * lowered.estimate.array


def test_a_program_takes_few_rows_and_leaves_little_padding():
    assert rows_of_a_run(37, 1e9) == 40  # all of them, in whole DMA words
    assert rows_of_a_run(4096, 1.0) == 4096
    for total, cycles in ((4900, 6912.0), (4096, 9216.0), (4900, 2304.0), (1000, 1e6)):
        rows = rows_of_a_run(total, cycles)
        runs = -(-total // rows)
        assert rows % 8 == 0 and runs > 1 and rows * runs < 1.05 * total


@pytest.mark.parametrize(
    ("config", "heads", "channels", "v_zero"),
    [
        (CONFIGS[0], 3, 16, 9),
        (CONFIGS[1], 3, 16, 0),
        (CONFIGS[0], 170, 16, 15),
        # heads that are padded
        (CONFIGS[0], 170, 14, 9),
        (CONFIGS[1], 3, 24, 15),
        (CONFIGS[1], 3, 5, 0),
    ],
)
def test_attention_is_the_hosts_in_every_bit(config, heads, channels, v_zero):
    rng = np.random.default_rng(3)
    c, rel = picture_heads(rng, channels, (5, 7), v_zero)
    q, k, v = (rng.integers(0, 16, (heads, 35, channels)).astype(np.uint8) for _ in range(3))
    lowered = lower_attention(config, (heads, 35, 35, channels), c, *rel)
    assert (lowered.runs > 1) == (heads > 3)
    function = module(config, {"attention": lowered})["attention"]
    assert np.array_equal(call(function, [q, k, v], q.shape), log_attention(q, k, v, c, *rel))


def test_attention_whose_probabilities_are_not_row_relative_is_refused():
    c, rel = picture_heads(np.random.default_rng(3), 16, (5, 7))
    with pytest.raises(DeviceError, match="quantize its probabilities with 'row_relative'"):
        lower_attention(CONFIGS[0], (3, 35, 35, 16), replace(c, row_relative=False), *rel)
    with pytest.raises(DeviceError, match="have 32 codes; the accelerator takes 16"):
        lower_attention(CONFIGS[0], (3, 35, 35, 16), replace(c, table=np.arange(32, dtype=np.uint8)), *rel)


def test_a_divisor_that_has_no_column_of_its_own_is_refused():
    c, rel = picture_heads(np.random.default_rng(3), 16, (5, 7))
    lowered = lower_attention(CONFIGS[0], (3, 35, 35, 16), c, *rel)
    ahcq_library().register_error("DeviceError", DeviceError)
    for change in ({"divisor": 2}, {"blocks": 4}, {"fields": (SumField(0, 0, 16),)}):
        with pytest.raises(DeviceError, match=r"out of range|larger than its memory"):
            module(CONFIGS[0], {"attention": replace(lowered, output=replace(lowered.output, **change))})


def test_several_functions_share_a_device_and_equal_operators_give_equal_bytes(layer, host_linear):
    rng, config = np.random.default_rng(4), CONFIGS[1]
    layers = [layer(rng, 16, (16,), (2,)) for _ in range(2)]
    functions = {f"layer{i}": lower_linear(config, 16, constants) for i, constants in enumerate(layers)}
    again = {f"layer{i}": lower_linear(config, 16, constants) for i, constants in enumerate(layers)}
    assert program_image(config, functions) == program_image(config, again)
    loaded, codes = module(config, functions), rng.integers(0, 16, (16, 16)).astype(np.uint8)
    for i in (0, 1, 0):
        expected = host_linear(codes, layers[i])
        assert np.array_equal(call(loaded[f"layer{i}"], [codes], (16, 16)), expected)
    calls = {str(entry[0]): list(entry[1:]) for entry in loaded["ahcq.counters"]()}
    assert calls["layer0"][0] == 2 and calls["layer1"][0] == 1
    assert calls["layer0"][1] > 0 and next(iter(loaded["ahcq.counter_names"]())) == "cycles"


def test_operators_of_one_shape_have_the_tokens_that_each_would_have_alone(layer):
    rng, config = np.random.default_rng(11), CONFIGS[1]
    layers = [lower_linear(config, 64, layer(rng, 96, (40, 24), zeros)) for zeros in ((3, 8), (0, 15))]
    other = lower_linear(config, 64, layer(rng, 96, (24, 40), (3, 8)))
    assert layers[0].token_key == layers[1].token_key != other.token_key
    for lowered in (*layers, other):
        assert lowered.tokens == dependency_tokens(lowered.instructions, config)
        strides = [each.address for each in lowered.instructions if isinstance(each, (Load, Store))]
        same = [each.address for each in layers[0].instructions if isinstance(each, (Load, Store))]
        assert (strides == same) == (lowered is not other)


def test_what_the_accelerator_cannot_do_is_refused(layer):
    rng, config = np.random.default_rng(5), CONFIGS[1]
    wide, encoder = layer(rng, 16, (16,), (2,), bits=8), (np.arange(15.0), np.arange(16, dtype=np.uint8))
    with pytest.raises(DeviceError, match="more than 4 bits"):
        lower_mlp(config, 16, wide, *encoder, layer(rng, 16, (16,), (0,)))
    constants = layer(rng, 16, (16,), (2,))
    with pytest.raises(DeviceError, match="18 operands"):
        lower_mlp(config, 16, constants, np.arange(17.0, dtype=np.float32), np.arange(18, dtype=np.uint8), constants)


def test_damaged_programs_a_wrong_device_and_a_wrong_tensor_are_errors(layer):
    rng, config = np.random.default_rng(6), CONFIGS[0]
    functions = {"layer": lower_linear(config, 8, layer(rng, 8, (8,), (1,)))}
    data, codes = program_image(config, functions), np.zeros((8, 8), np.uint8)
    load = ahcq_library().get_global_func("ahcq.accelerator_module")
    ahcq_library().register_error("DeviceError", DeviceError)
    for broken in (data[:-1], data[:40], b"", b"x" + data[1:], data[:60] + bytes([data[60] ^ 1]) + data[61:]):
        with pytest.raises(DeviceError, match=r"cannot be used.*compile the model again"):
            load(broken)
    with pytest.raises(DeviceError, match="sim_4x4"):
        call(module(config, functions, "fsim:ecp5_16x16")["layer"], [codes], (8, 8))
    with pytest.raises(DeviceError, match="no accelerator is called 'gpu'"):
        call(module(config, functions, "gpu")["layer"], [codes], (8, 8))
    with pytest.raises(ValueError, match="64 elements"):
        call(module(config, functions)["layer"], [codes[:4]], (8, 8))


def test_a_failing_device_hands_over_to_the_host_with_the_same_result(layer, capfd):
    rng, config = np.random.default_rng(7), CONFIGS[0]
    functions = {"layer": lower_linear(config, 8, layer(rng, 8, (8,), (1,)))}
    codes = rng.integers(0, 16, (8, 8)).astype(np.uint8)
    expected = call(module(config, functions)["layer"], [codes], (8, 8))
    failing = module(config, functions, "board:/dev/none,/dev/none", on_error="host")
    assert np.array_equal(call(failing["layer"], [codes], (8, 8)), expected)
    assert "going on with the functional simulator" in capfd.readouterr().err


def test_the_simulated_rtl_gives_the_same_bits_and_cycles(layer):
    rng, config = np.random.default_rng(9), CONFIGS[0]
    functions = {"layer": lower_linear(config, 24, layer(rng, 24, (12, 8), (3, 9)))}
    codes = rng.integers(0, 16, (24, 20)).astype(np.uint8)
    found = []
    for device in ("fsim", f"rtl:{build(config)}"):
        loaded = module(config, functions, device)
        result = call(loaded["layer"], [codes], (24, 24))
        found.append((result.tobytes(), [list(entry[1:]) for entry in loaded["ahcq.counters"]()]))
    assert found[0] == found[1]


def test_a_linear_layer_with_another_tile_is_another_program_with_the_same_result(layer):
    rng, config = np.random.default_rng(20), CONFIGS[0]
    constants = layer(rng, 40, (24, 16, 12), (3, 0, 15))
    default = lower_linear(config, 72, constants)
    (shape,) = default.shapes
    # 2 channels of each group are padding
    assert shape == LinearShape(72, 40, 48, (2, 1), False, ()) and not default.tuned
    codes = rng.integers(0, 16, (72, 52)).astype(np.uint8)
    expected = call(module(config, {"layer": default})["layer"], [codes], (72, 40))
    programs = {default.program}
    for tile in (LinearTile(24, 3, 2, 1), LinearTile(24, 3, 2, 1, columns_first=True), LinearTile(40, 1, 1, 3)):
        lowered = lower_linear(config, 72, constants, tiles={shape: tile})
        assert lowered.tuned and lowered.shapes == (shape,)
        assert np.array_equal(call(module(config, {"layer": lowered})["layer"], [codes], (72, 40)), expected)
        programs.add(lowered.program)
    assert len(programs) == 4


def test_both_layers_of_an_mlp_have_their_own_tiles(layer):
    rng, config = np.random.default_rng(21), CONFIGS[0]
    first, second = layer(rng, 40, (24, 16), (4, 11)), layer(rng, 20, (40,), (0,))
    encoder = np.sort(rng.normal(size=15)).astype(np.float32), np.arange(16, dtype=np.uint8)
    codes = rng.integers(0, 16, (48, 40)).astype(np.uint8)
    default = lower_mlp(config, 48, first, *encoder, second)
    assert [(shape.outputs, shape.encoded) for shape in default.shapes] == [(40, True), (20, False)]
    tiles = {default.shapes[0]: LinearTile(16, 2, 1, 1, columns_first=True), default.shapes[1]: LinearTile(8, 4, 2, 0)}
    tuned = lower_mlp(config, 48, first, *encoder, second, tiles)
    fed = {each.rows for each in tuned.instructions if isinstance(each, Gemm)}
    assert fed == {16, 8} and tuned.tuned
    results = [call(module(config, {"mlp": each})["mlp"], [codes], (48, 20)) for each in (default, tuned)]
    assert np.array_equal(*results)


def test_scales_of_a_set_of_columns_are_loaded_once_if_columns_are_outermost(layer):
    rng, config = np.random.default_rng(22), CONFIGS[0]
    first, second = layer(rng, 40, (24, 16), (4, 11)), layer(rng, 20, (40,), (0,))
    encoder = np.sort(rng.normal(size=15)).astype(np.float32), np.arange(16, dtype=np.uint8)
    shape = lower_mlp(config, 48, first, *encoder, second).shapes[0]

    def loads(columns_first: bool) -> int:
        lowered = lower_mlp(config, 48, first, *encoder, second, {shape: LinearTile(16, 2, 1, 1, columns_first)})
        return sum(
            isinstance(each, Load) and each.memory == "vec" and each.sp_stride == 2 for each in lowered.instructions
        )

    assert (loads(False), loads(True)) == (15, 5)  # three tiles of rows, five sets of two blocks


def test_attention_with_another_tile_is_another_program_with_the_same_result():
    rng, config = np.random.default_rng(23), CONFIGS[0]
    c, rel = picture_heads(rng, 8, (5, 8))
    codes = [rng.integers(0, 16, (2, 40, 8)).astype(np.uint8) for _ in "qkv"]
    default = lower_attention(config, (2, 40, 40, 8), c, *rel)
    (shape,) = default.shapes
    assert shape.sides == (5, 8) and not default.tuned
    tuned = lower_attention(config, (2, 40, 40, 8), c, *rel, {shape: AttentionTile(8, 2, 1)})
    assert tuned.tuned and tuned.program != default.program
    found = call(module(config, {"attention": tuned})["attention"], codes, (2, 40, 8))
    assert np.array_equal(found, log_attention(*codes, c, *rel))


def test_a_tile_that_does_not_fit_or_is_of_another_operator_is_an_error(layer):
    rng, config = np.random.default_rng(24), CONFIGS[0]
    constants = layer(rng, 16, (24,), (3,))
    (shape,) = lower_linear(config, 16, constants).shapes
    for tile in (LinearTile(8, 4, 4096, 1), AttentionTile(8, 2, 1)):
        with pytest.raises(TuningError, match=r"linear 16 x 24 -> 16, 1 groups: the tile .* does not fit it; tune"):
            lower_linear(config, 16, constants, tiles={shape: tile})
    c, rel = picture_heads(rng, 8, (5, 8))
    (shape,) = lower_attention(config, (2, 40, 40, 8), c, *rel).shapes
    for tile in (AttentionTile(8, 5, 4), AttentionTile(7, 1, 1), LinearTile(8, 1, 1, 1)):
        with pytest.raises(TuningError, match=r"picture of 5 x 8: the tile .* for sim_4x4"):
            lower_attention(config, (2, 40, 40, 8), c, *rel, {shape: tile})
