"""The rounding pass: every layer once, better than to the nearest, and nothing of the float model lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.calibrate.images import load_calibration
from tvm_ahcq.calibrate.round_weights import round_weights
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.weight.weights import calibrate_weight, encode_weight
from tvm_ahcq.relay_passes.annotate import layers


@pytest.fixture(scope="module")
def nearest(tiny_model, pictures) -> QuantizedModel:
    return quantize(tiny_model, pictures, replace(recipe("ahcq"), rounding="nearest", equalise=False))


@pytest.fixture(scope="module")
def rounding(nearest, tiny_model, pictures):
    images = list(load_calibration(pictures, tiny_model.spec, 3))
    return round_weights(nearest.annotated, nearest.prepared.params, nearest.table, Samples(tiny_model.spec, images))


def test_every_layer_is_rounded_and_none_is_worse_than_to_the_nearest(nearest, rounding):
    assert set(rounding.layers) == set(layers(nearest.annotated))
    assert all(found.error <= found.nearest_error for found in rounding.layers.values())
    assert np.median([found.error / found.nearest_error for found in rounding.layers.values()]) < 0.9


def test_what_reads_pixels_is_rounded_to_the_nearest_and_its_bias_takes_up_the_fraction_of_the_mean(
    nearest, rounding, tiny_model
):
    name = "image_encoder.patch_embed.proj"
    found, weight = rounding.layers[name], tiny_model.params[f"{name}.weight"]
    flat = weight.reshape(len(weight), -1)
    plain = calibrate_weight(flat, 8)
    np.testing.assert_array_equal(found.weight.codes, plain.codes)
    fraction = [(round(m) - m) / s for m, s in zip(tiny_model.spec.pixel_mean, tiny_model.spec.pixel_std, strict=True)]
    wanted = tiny_model.params[f"{name}.bias"] + flat @ np.repeat(fraction, 256)
    rounded = np.abs(flat - plain.dequantize()).sum(1)  # times the means of the inputs, which are below 1
    assert (np.abs(found.bias - wanted) <= rounded).all()


def test_the_table_holds_codes_of_every_weight_and_the_biases(nearest, rounding):
    table, by_name = rounding.table, layers(nearest.annotated)
    assert set(table.sites) == set(nearest.table.sites) and set(table.codes) == set(table.weights)
    assert not set(table.params) & set(table.weights)
    for name, layer in rounding.layers.items():
        weight = table.weight(by_name[name].weight)
        assert weight.codes.shape == nearest.model.params[by_name[name].weight].shape
        np.testing.assert_array_equal(weight.codes.reshape(layer.weight.codes.shape), layer.weight.codes)
        np.testing.assert_array_equal(weight.scale, layer.weight.scale)
        np.testing.assert_array_equal(weight.zero_point, layer.weight.zero_point)
        if layer.bias is not None:
            np.testing.assert_array_equal(table.params[by_name[name].bias], layer.bias)


def test_values_of_changed_weights_have_the_same_codes_again(rounding):
    changed = rounding.table.changed_params()
    for name, ranges in rounding.table.weights.items():
        again = encode_weight(changed[name], *ranges.arrays(), ranges.bits)
        np.testing.assert_array_equal(again.codes, rounding.table.codes[name])


def test_the_embedding_of_other_pictures_comes_nearer_to_the_float_model(nearest, rounding, tiny_model):
    rng = np.random.default_rng(7)
    unseen = [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(3)]
    images = list(load_calibration(unseen, tiny_model.spec, 3))
    exact = nearest.float_predictor().session
    before, after = (
        np.mean(
            [
                np.square(SamFunctions(session).encode(image) - SamFunctions(exact).encode(image)).mean()
                for image in images
            ]
        )
        for session in (
            model.fake_quant_predictor().session for model in (nearest, replace(nearest, table=rounding.table))
        )
    )
    assert after < 0.9 * before


def test_a_recipe_asks_for_it(tiny_model, pictures):
    rounded, nearest = (quantize(tiny_model, pictures[:1], recipe(name)).table for name in ("ahcq", "minmax"))
    assert rounded.params and rounded.codes
    assert not nearest.params and not nearest.codes
