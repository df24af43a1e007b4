"""What a whole quantization must withstand: NaN, constants, dead channels, one image, weights without content."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.errors import CalibrationError, CheckpointError
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.quantizers.core.recipe import Recipe, recipe

RECIPES = {
    **{name: recipe(name) for name in ("ahcq", "minmax")},
    # the published search of weight ranges takes its time and is tested elsewhere
    **{name: replace(recipe(name), weight_range="mse") for name in ("paper", "ptq4sam")},
}
MLP = "image_encoder.blocks.0.mlp"
RELU = "mask_decoder.transformer.layers.0.mlp"


@pytest.fixture(params=RECIPES)
def chosen(request) -> Recipe:
    return RECIPES[request.param]


def with_params(model: FloatModel, params: dict[str, np.ndarray]) -> FloatModel:
    return replace(model, params={**model.params, **params})


def assert_works(quantized: QuantizedModel, pictures: list[np.ndarray], tolerance: float = 0.5) -> None:
    """Every site on integers; embeddings and masks finite, embeddings near the float model's."""
    assert quantized.sites[0] == quantized.sites[1]
    predictors = quantized.float_predictor(), quantized.fake_quant_predictor()
    for predictor in predictors:
        predictor.set_image(pictures[0])
    wanted, found = (predictor.features for predictor in predictors)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - wanted) < tolerance * np.linalg.norm(wanted)
    masks, scores, logits = predictors[1].predict(np.float32([[60, 60]]), np.array([1]))
    assert np.isfinite(scores).all() and np.isfinite(logits).all() and masks.dtype == bool


@pytest.mark.parametrize(
    ("name", "value"),
    [(f"{MLP}.lin1.bias", np.nan), (f"{RELU}.lin1.bias", np.inf), ("image_encoder.blocks.1.norm1.weight", np.nan)],
)
def test_activations_that_are_not_finite_are_refused_by_the_name_of_a_site(tiny_model, pictures, chosen, name, value):
    bias = tiny_model.params[name].copy()
    bias[0] = value
    with pytest.raises(CalibrationError, match=r"sees NaN or infinite values.*check the checkpoint"):
        quantize(with_params(tiny_model, {name: bias}), pictures[:1], chosen)


def test_a_weight_that_is_not_finite_is_refused(tiny_model, pictures, chosen):
    name = "image_encoder.blocks.0.attn.proj.weight"
    weight = tiny_model.params[name].copy()
    weight[3, 4] = np.nan
    with pytest.raises((CalibrationError, CheckpointError), match="check the checkpoint"):
        quantize(with_params(tiny_model, {name: weight}), pictures[:1], chosen)


def test_constant_activations_are_kept(tiny_model, pictures, chosen):
    """Hidden units of a GELU and of a ReLU, and keys and values of an attention, are always the same."""
    params = {}
    for mlp, value in ((MLP, 0.6), (RELU, -3.0)):
        weight, bias = f"{mlp}.lin1.weight", f"{mlp}.lin1.bias"
        params |= {weight: np.zeros_like(tiny_model.params[weight])}
        params |= {bias: np.full_like(tiny_model.params[bias], value)}
    for kind, value in (("weight", 0), ("bias", 0.3)):
        name = f"image_encoder.blocks.1.attn.qkv.{kind}"
        params[name] = tiny_model.params[name].copy()
        params[name][48:] = value
    assert_works(quantize(with_params(tiny_model, params), pictures[:1], chosen), pictures)


def test_channels_columns_and_layers_of_zeros_on_one_image(tiny_model, pictures, chosen):
    params = dict(tiny_model.params)
    for kind in ("weight", "bias"):
        name = f"image_encoder.blocks.0.norm1.{kind}"
        params[name] = params[name].copy()
        params[name][[0, 7]] = 0
    params[f"{RELU}.lin1.bias"] = params[f"{RELU}.lin1.bias"].copy()
    params[f"{RELU}.lin1.bias"][:5] = -100
    for name in (f"{MLP}.lin1.weight", "image_encoder.neck.2.weight", "image_encoder.blocks.1.attn.qkv.weight"):
        params[name] = params[name].copy()
        params[name][:, 3] = params[name][5] = 0
    empty = f"{MLP}.lin2.weight", "mask_decoder.transformer.layers.0.self_attn.q_proj.weight"
    params |= {name: np.zeros_like(params[name]) for name in empty}
    quantized = quantize(with_params(tiny_model, params), pictures[:1], chosen)
    assert not any(quantized.params[name].any() for name in empty)
    assert_works(quantized, pictures)


def test_an_image_of_one_colour_is_enough(tiny_model):
    assert quantize(tiny_model, [np.zeros((40, 60, 3), np.uint8)], RECIPES["minmax"]).table.sites
