"""Programs for one prompt that run for as many as a call brings, against the host's integer reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.lower.attention.operator import lower_attention
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.linear.operator import lower_linear
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.program_image import program_image
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import AttentionConstants, attention_logit_scale, log_attention
from tvm_ahcq.runtime.accelerator import prepare
from tvm_ahcq.runtime.ffi import ahcq_library

CONFIG = named("sim_4x4")
ROWS, OUTPUTS, SIZES, ZEROS = 37, 21, (12, 20), (7, 2)


class Layer:
    """A linear layer of two channel groups, and its results on the host."""

    def __init__(self, parameters: LinearLayer, host_linear: Callable[[np.ndarray, LinearLayer], np.ndarray]) -> None:
        self.parameters, self.host_linear = parameters, host_linear

    def lowered(self, rows: int = ROWS) -> OffloadedOp:
        return replace(lower_linear(CONFIG, rows, self.parameters), batched=True)

    def host(self, codes: np.ndarray) -> np.ndarray:
        flat = self.host_linear(codes.reshape(-1, sum(SIZES)), self.parameters)
        return flat.reshape(*codes.shape[:-1], OUTPUTS)


@pytest.fixture
def layer(layer, host_linear) -> Layer:
    return Layer(layer(np.random.default_rng(0), OUTPUTS, SIZES, ZEROS), host_linear)


def module(functions: dict[str, OffloadedOp], device: str = "fsim", on_error: str = "raise", seconds: float = 60.0):
    prepare()
    loaded = ahcq_library().get_global_func("ahcq.accelerator_module")(program_image(CONFIG, functions))
    loaded["ahcq.configure"](device, on_error, seconds)
    return loaded


def call(function, inputs: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    ffi, result = ahcq_library(), np.full(shape, np.nan, np.float32)
    function(*(ffi.from_dlpack(np.ascontiguousarray(x)) for x in inputs), ffi.from_dlpack(result))
    return result


def codes_of(prompts: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(prompts).integers(0, 16, (prompts, rows, sum(SIZES))).astype(np.uint8)


def last(loaded) -> dict[str, int]:
    """Counters of the last call of the only function."""
    names = ["calls", *map(str, loaded["ahcq.counter_names"]()), "times"]
    ((_, *values),) = loaded["ahcq.counters"]()
    return dict(zip(names, map(int, values), strict=True))


def test_a_layer_is_the_hosts_in_every_bit_for_any_number_of_prompts(layer):
    loaded = module({"layer": layer.lowered()})
    for prompts in (1, 3, 2):
        codes = codes_of(prompts)
        found = call(loaded["layer"], [codes], (prompts, ROWS, OUTPUTS))
        assert np.array_equal(found, layer.host(codes))
        assert last(loaded)["times"] == prompts
    assert last(loaded)["calls"] == 3


def test_no_prompt_is_no_run(layer):
    loaded = module({"layer": layer.lowered()})
    ffi = ahcq_library()
    empty = [
        ffi.from_dlpack(
            np.lib.stride_tricks.as_strided(
                np.zeros(0, dtype), (0, ROWS, width), tuple(size * step for step in (ROWS * width, width, 1))
            )
        )
        for dtype, size, width in ((np.uint8, 1, sum(SIZES)), (np.float32, 4, OUTPUTS))
    ]
    loaded["layer"](*empty)
    assert (last(loaded)["times"], last(loaded)["cycles"]) == (0, 0)


def test_runs_go_on_across_prompts_so_that_little_of_them_is_padding(layer):
    lowered = layer.lowered()
    taken = lowered.output.rows
    assert lowered.runs == 1 and taken > ROWS
    loaded, loads = module({"layer": lowered}), {}
    for prompts in (1, 14):
        codes = codes_of(prompts)
        found = call(loaded["layer"], [codes], (prompts, ROWS, OUTPUTS))
        assert np.array_equal(found, layer.host(codes))
        loads[prompts] = last(loaded)["load_chunks"]
    assert loads[14] == loads[1] * -(-14 * ROWS // taken) < 14 * loads[1]


def test_a_prompt_of_several_runs_is_the_hosts_in_every_bit(layer):
    lowered = lower_linear(CONFIG, 120, layer.parameters)
    shorter = replace(
        lowered,
        inputs=(replace(lowered.inputs[0], total=260),),
        output=replace(lowered.output, total=260),
        batched=True,
    )
    assert shorter.runs == 3 and 260 % 120
    codes = codes_of(2, 260)
    found = call(module({"layer": shorter})["layer"], [codes], (2, 260, OUTPUTS))
    assert np.array_equal(found, layer.host(codes))


def test_a_program_for_any_number_of_rows_is_the_hosts_in_every_bit(layer):
    lowered = lower_linear(CONFIG, 7, layer.parameters)
    single = replace(
        lowered,
        inputs=(replace(lowered.inputs[0], total=1),),
        output=replace(lowered.output, total=1),
        batched=True,
        repeats=7,
    )
    assert (single.runs, single.output.rows) == (1, 8)
    loaded, loads = module({"layer": single}), {}
    for prompts, tokens in ((1, 7), (3, 5), (2, 8), (1, 1)):
        codes = codes_of(prompts, tokens)
        assert np.array_equal(call(loaded["layer"], [codes], (prompts, tokens, OUTPUTS)), layer.host(codes))
        assert last(loaded)["times"] == prompts * tokens
        loads[prompts * tokens] = last(loaded)["load_chunks"]
    assert loads[15] == loads[16] == 2 * loads[7] == 2 * loads[1]


def test_shapes_that_say_what_symbolic_sizes_are_may_come_with_the_tensors(layer):
    ffi, codes, result = ahcq_library(), codes_of(2), np.zeros((2, ROWS, OUTPUTS), np.float32)
    function = module({"layer": layer.lowered()})["layer"]
    function(ffi.from_dlpack(codes), ffi.Shape((4,)), ffi.from_dlpack(result))
    assert np.array_equal(result, layer.host(codes))
    with pytest.raises(TypeError, match="takes 1 inputs and a result; got 1 tensors"):
        function(ffi.from_dlpack(codes), ffi.Shape((4,)))


def test_attention_over_prompts_is_the_hosts_in_every_bit():
    rng, (heads, queries, keys, channels) = np.random.default_rng(1), (2, 9, 14, 8)
    scale = attention_logit_scale((225 * channels, 6e-3), (15 * 127 * channels, 4e-4, 3e-4))
    thresholds = np.sort(rng.choice(9000, 15, replace=False))[::-1].astype(np.int32)
    table = np.concatenate([[0], np.sort(rng.integers(1, 256, 15))]).astype(np.uint8)
    constants = AttentionConstants(
        7, 6, 9, **scale, log_thresholds=thresholds, table=table, out_scale=np.float32(0.31), row_relative=True
    )
    lowered = replace(lower_attention(CONFIG, (heads, queries, keys, channels), constants), batched=True)
    loaded = module({"attention": lowered})
    for prompts in (1, 3):
        q, k, v = (
            rng.integers(0, 16, (prompts, heads, rows, channels)).astype(np.uint8) for rows in (queries, keys, keys)
        )
        found = call(loaded["attention"], [q, k, v], q.shape)
        flat = [x.reshape(prompts * heads, -1, channels) for x in (q, k, v)]
        assert np.array_equal(found.reshape(flat[0].shape), log_attention(*flat, constants))


def test_the_host_takes_over_in_the_middle_of_the_prompts_with_equal_results(layer, capfd):
    loaded = module({"layer": layer.lowered()}, "fsim:sim_4x4,hang=3", "host", 0.2)
    codes = codes_of(5)
    assert np.array_equal(call(loaded["layer"], [codes], (5, ROWS, OUTPUTS)), layer.host(codes))
    assert "going on with the functional simulator" in capfd.readouterr().err
    assert last(loaded)["times"] == 5


def test_tensors_of_different_numbers_of_prompts_are_refused(layer):
    function = module({"layer": layer.lowered()})["layer"]
    for codes, shape in ((codes_of(2), (3, ROWS, OUTPUTS)), (codes_of(2)[:, :30], (2, 30, OUTPUTS))):
        with pytest.raises(ValueError, match="layer takes dense tensors"):
            call(function, [codes], shape)


def test_programs_whose_tensors_do_not_grow_together_are_refused(layer):
    lowered = layer.lowered()
    apart = replace(lowered, output=replace(lowered.output, total=ROWS - 1))
    with pytest.raises(DeviceError, match="do not grow together"):
        module({"layer": apart})
    with pytest.raises(DeviceError, match="how many prompts"):
        module({"layer": replace(lowered, inputs=())})
