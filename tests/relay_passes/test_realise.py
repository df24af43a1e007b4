"""The integer graph, run by the numpy reference, against the simulation in torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.errors import QuantTableError, UnsupportedModelError
from tvm_ahcq.models.description import ATTENTION
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.core.reference import EXP_BITS, MAX_KEYS, MAX_KEYS_ROW_RELATIVE
from tvm_ahcq.quantizers.core.table import QuantTable, WeightRange
from tvm_ahcq.relay_passes.annotate import annotate
from tvm_ahcq.relay_passes.realise import _Groups, realise
from tvm_ahcq.runtime.weights import QLinearWeight, expand
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import SimulatedSites, exact_layer_norm, using_sites
from tvm_ahcq.torch_exec.simulated_session import SimulatedSession


def flat_tensors(tensors) -> dict[str, np.ndarray]:
    """Parameters as the graph takes them: a weight stands for three."""
    flat = {}
    for name, value in tensors.items():
        if isinstance(value, QLinearWeight):
            parts = zip(("packed", "multiplier", "correction"), expand(value), strict=True)
            flat |= {f"{name}_{part}": array for part, array in parts}
        else:
            flat[name] = value
    return flat


PUBLISHED = {
    # the published search of weight ranges takes its time and is tested elsewhere
    **{name: replace(recipe(name), weight_range="mse") for name in ("paper", "ptq4sam")},
    "uniform probabilities": replace(recipe("minmax"), activation="hluq", search="published"),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request, tiny_model, pictures) -> QuantizedModel:
    """The tiny model by published searches: HLUQ's own table, AGQ or uniform codes of probabilities."""
    return quantize(tiny_model, pictures[:2], PUBLISHED[request.param])


@pytest.mark.parametrize("layout", ["vnni16", "rows"])
def test_integer_graph_equals_the_simulation_bit_for_bit(quantized, prompts, layout):
    assert_equals_the_simulation(quantized, prompts, layout)


def test_integer_graph_of_published_quantizers_equals_the_simulation_bit_for_bit(published, prompts):
    assert published.sites[0] == published.sites[1] == len(published.table.sites)
    assert_equals_the_simulation(published, prompts, "vnni16")


def assert_equals_the_simulation(quantized: QuantizedModel, prompts, layout: str) -> None:
    realised = quantized.realise(layout)
    hooks = {"relax.nn.layer_norm": exact_layer_norm}
    integer = TorchExecutor(realised.module, flat_tensors(realised.tensors), hooks)
    model = quantized.model
    simulated = SimulatedSession(model.spec, quantized.annotated, quantized.params, quantized.coded_table)
    with using_sites(SimulatedSites({})):  # float layers summed in float64, as the simulation does
        got = integer.run("encode_image", *prompts["encode_image"]).numpy()
        np.testing.assert_array_equal(got, SamFunctions(simulated).encode(*prompts["encode_image"]))
        for function in ("decode", "decode_mask"):
            masks, scores = integer.run(function, *prompts[function])
            expected_masks, expected_scores = SamFunctions(simulated).decode(*prompts[function])
            np.testing.assert_array_equal(masks.numpy(), expected_masks)
            np.testing.assert_array_equal(scores.numpy(), expected_scores)


def test_nothing_of_the_float_sites_is_left(quantized):
    realised = quantized.realise("vnni16")
    assert (realised.covered, realised.missing) == (realised.total, [])
    text = realised.module.script(show_meta=False)
    for gone in ("R.ahcq.quantize(", "R.ahcq.attention(", "R.ahcq.conv2d("):
        assert gone not in text
    functions_with_weight = [
        n for names in realised.function_params.values() for n in names if n in quantized.table.weights
    ]
    assert text.count("R.ahcq.grouped_linear(") == len(functions_with_weight)


def test_weights_are_stored_as_codes_only(quantized):
    realised = quantized.realise("vnni16")
    for name in quantized.table.weights:
        pixels = name == "image_encoder.patch_embed.proj.weight"
        weight, bits = realised.tensors[name], quantized.table.recipe.bits_of_weight(name, pixels)
        assert isinstance(weight, QLinearWeight) and weight.bits == bits
    assert realised.tensors["image_encoder.patch_embed.proj.weight"].bits == 8


def test_a_table_of_another_model_is_refused(quantized):
    fewer = dict(list(quantized.table.sites.items())[1:])
    with pytest.raises(QuantTableError, match="does not fit"):
        replace(quantized, table=replace(quantized.table, sites=fewer)).realise("vnni16")
    fewer = dict(list(quantized.table.weights.items())[1:])
    with pytest.raises(QuantTableError, match="no ranges for the weight"):
        replace(quantized, table=replace(quantized.table, weights=fewer)).realise("vnni16")


def test_groups_are_contiguous_and_padded_to_fours():
    groups = _Groups.of("site", CagParams(4, (0.1, 0.5), (3, 7), (0, 1, 1, 0, 1, 1)), 6)
    assert groups.sizes == (4, 8) and not groups.identity
    assert groups.index.tolist() == [0, 3, -1, -1, 1, 2, 4, 5, -1, -1, -1, -1]


def test_groups_that_lie_in_order_already_are_neither_moved_nor_padded():
    colours = _Groups.of("site", CagParams(8, (0.1, 0.2, 0.3), (3, 7, 9), (0,) * 4 + (1,) * 8 + (2,) * 4), 16)
    assert colours.identity and colours.sizes == (4, 8, 4) and colours.index.tolist() == list(range(16))


def test_editing_a_site_changes_parameters_and_not_the_graph(quantized):
    name = next(site for site, params in quantized.table.sites.items() if params.kind == "uniform")
    params = quantized.table.sites[name]
    edited = replace(quantized.table, sites={**quantized.table.sites, name: replace(params, scale=2 * params.scale)})
    before, after = quantized.realise("vnni16"), replace(quantized, table=edited).realise("vnni16")
    tvm.ir.assert_structural_equal(before.module, after.module)
    assert after.tensors[f"{name}.scale"][0] == np.float32(2 * params.scale)


def test_sites_become_encoders_and_layers_integer_products_of_named_parameters():
    @I.ir_module
    class Annotated:
        @R.function
        def main(
            x: R.Tensor((2, 5, 8), "float32"),
            s: R.Tensor((8,), "float32"),
            w: R.Tensor((16, 8), "float32"),
            b: R.Tensor((16,), "float32"),
        ):
            R.func_attr({"ahcq_param_names": ["norm.weight", "fc.weight", "fc.bias"]})
            with R.dataflow():
                normed = R.ahcq.quantize(R.multiply(x, s), site="fc.input", kind="uniform", bits=4)
                y = R.ahcq.linear(normed, w, b, name="fc")
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor((2, 5, 8), "float32"),
            s: R.Tensor((8,), "float32"),
            index: R.Tensor((8,), "int32"),
            channels: R.Tensor((2,), "int32"),
            scale: R.Tensor((1,), "float32"),
            zero: R.Tensor((1,), "int32"),
            packed: R.Tensor((1, 2, 16, 4), "int8"),
            multiplier: R.Tensor((1, 16), "float32"),
            correction: R.Tensor((1, 16), "int32"),
            bounds: R.Tensor((2,), "int32"),
            bias: R.Tensor((16,), "float32"),
        ):
            R.func_attr({"ahcq_param_names": NAMES, "num_input": 1})
            with R.dataflow():
                normed = R.multiply(x, s)
                codes = R.ahcq.encode_affine(
                    normed, index, channels, scale, zero, site="fc.input", bits=4, identity=True
                )
                y = R.ahcq.grouped_linear(
                    codes,
                    packed,
                    bounds,
                    multiplier,
                    correction,
                    bias,
                    name="fc",
                    layout="vnni16",
                    weight_bits=4,
                    operand_max=15,
                    exact_steps=2,
                )
                R.output(y)
            return y

    params = {"norm.weight": np.ones(8), "fc.weight": np.ones((16, 8)), "fc.bias": np.zeros(16)}
    sites, ranges = {"fc.input": UniformParams(4, 0.1, 7)}, {"fc.weight": WeightRange(4, (0.1,) * 16, (8,) * 16)}
    table = QuantTable("one layer", recipe("ahcq", 4), sites, ranges).with_codes(params)
    realised = realise(Annotated, params, table, "vnni16")
    tvm.ir.assert_structural_equal(realised.module, Expected)
    assert (realised.covered, realised.total, realised.missing) == (1, 1, [])
    inputs = ["fc.input.index", "fc.input.bounds", "fc.input.scale", "fc.input.zero_point"]
    assert realised.function_params == {"main": ["norm.weight", *inputs, "fc.weight", "fc.bounds", "fc.bias"]}
    assert isinstance(realised.tensors["fc.weight"], QLinearWeight)


NAMES = [
    "s",
    *("fc_input_index", "fc_input_bounds", "fc_input_scale", "fc_input_zero_point"),
    *("fc_weight_packed", "fc_weight_multiplier", "fc_weight_correction", "fc_bounds", "fc_bias"),
]
"""Names of the variables of a realised layer `fc`, in order."""


def attention_over(keys: int) -> tvm.IRModule:
    """One float attention of four queries."""

    @I.ir_module
    class Attention:
        @R.function
        def main(
            q: R.Tensor((1, 4, 8), "float32"),
            k: R.Tensor((1, keys, 8), "float32"),
            v: R.Tensor((1, keys, 8), "float32"),
        ):
            with R.dataflow():
                y = R.ahcq.attention(q, k, v, name="attn", scale=0.35, bits=0)
                R.output(y)
            return y

    return Attention


@pytest.mark.parametrize(
    ("probs", "most"),
    [(LnqParams(4, 20.0, 0.7), MAX_KEYS), (RowRelativeParams(4, 20.0), MAX_KEYS_ROW_RELATIVE)],
    ids=["lnq", "row_relative"],
)
def test_attention_whose_sums_could_leave_int32_is_refused(make_family, probs, most: int):
    assert MAX_KEYS << EXP_BITS < 2**31 <= (MAX_KEYS + 1) << EXP_BITS
    assert MAX_KEYS_ROW_RELATIVE * 255**2 < 2**31 <= (MAX_KEYS_ROW_RELATIVE + 1) * 255**2
    sites = {f"attn.{role}": UniformParams(4, 0.1, 7) for role in "qkv"} | {"attn.probs": probs}
    table = QuantTable("one attention", recipe("ahcq", 4), sites)
    family = make_family({"attn": ATTENTION})
    longest = realise(annotate(attention_over(most), table.recipe, family), {}, table, "rows")
    assert (longest.covered, longest.missing) == (4, [])
    with pytest.raises(UnsupportedModelError, match=rf"attn: attends to {most + 1} keys.* at most {most}"):
        realise(annotate(attention_over(most + 1), table.recipe, family), {}, table, "rows")
