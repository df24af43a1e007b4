"""The walk over layers, and what it keeps of their inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.calibrate.images import load_calibration
from tvm_ahcq.calibrate.layer_walk import ROWS_A_LAYER, LayerWalk, layer_sample
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.torch_exec.simulate import same_convolution


def numbered(images: int, tokens: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs whose rows tell where they come from: (image, token), and minus that in the quantized stream."""
    rows = [torch.stack([torch.full((tokens,), float(i)), torch.arange(float(tokens))], -1) for i in range(images)]
    return [(x.reshape(2, tokens // 2, 2), -x.reshape(2, tokens // 2, 2)) for x in rows]


@pytest.mark.parametrize("images", [1, 3, 4, 9])
def test_rows_of_both_streams_correspond(images):
    sample = layer_sample(numbered(images, 40), (8, 2))
    np.testing.assert_array_equal(sample.quantized_inputs, -sample.float_inputs)
    assert len(np.unique(sample.float_inputs, axis=0)) == len(sample.float_inputs) == 40 * images


@pytest.mark.parametrize("images", [4, 9])
def test_every_fourth_image_is_held_out(images):
    sample = layer_sample(numbered(images, 40), (8, 2))
    np.testing.assert_array_equal(sample.held_out, sample.float_inputs[:, 0] % 4 == 3)


@pytest.mark.parametrize("images", [1, 3])
def test_a_quarter_of_the_rows_of_few_images_is_held_out(images):
    sample = layer_sample(numbered(images, 40), (8, 2))
    for image in range(images):
        assert sample.held_out[sample.float_inputs[:, 0] == image].sum() == 10


def test_rows_of_an_image_are_bounded_and_chosen_alike_every_time():
    first, again = (layer_sample(numbered(2, 4 * ROWS_A_LAYER), (8, 2)) for _ in range(2))
    assert len(first.float_inputs) == ROWS_A_LAYER
    np.testing.assert_array_equal(first.float_inputs, again.float_inputs)


def test_rows_that_are_patches_already_are_taken_as_they_are():
    x = torch.arange(2.0 * 3 * 12).reshape(1, 2, 3, 12)
    sample = layer_sample([(x, -x)], (5, 3, 2, 2))
    assert sorted(sample.float_inputs[:, 0]) == [0, 12, 24, 36, 48, 60]
    np.testing.assert_array_equal(sample.float_inputs, -sample.quantized_inputs)


@pytest.mark.parametrize("kernel", [1, 3])
def test_patches_times_a_flat_weight_are_the_convolution(kernel):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 6, 5, 4, generator=generator)
    weight = torch.randn(7, 4, kernel, kernel, generator=generator)
    sample = layer_sample([(x, x)], tuple(weight.shape))
    wanted = same_convolution(x, weight).flatten(0, -2).numpy()
    found = sample.float_inputs @ weight.flatten(1).numpy().T
    assert found.shape == wanted.shape
    order = [np.lexsort(np.round(rows.T, 3)) for rows in (wanted, found)]
    np.testing.assert_allclose(found[order[1]], wanted[order[0]], atol=1e-5)


@pytest.fixture(scope="module")
def quantized_activations(tiny_model, pictures) -> QuantizedModel:
    return quantize(tiny_model, pictures, recipe("minmax"))


def test_layers_come_in_graph_order_and_what_is_changed_shows_further_on(quantized_activations, tiny_model, pictures):
    model = quantized_activations
    images = list(load_calibration(pictures[:2], tiny_model.spec, 2))
    walk, seen = LayerWalk(model.annotated, tiny_model.params, model.table), {}

    def visit(name, inputs):
        seen[name] = inputs
        if name == "image_encoder.blocks.0.mlp.lin2":
            walk.sites.layers[name] = torch.zeros(48, 192), torch.zeros(48)

    walk.run(Samples(tiny_model.spec, images), visit)
    assert set(walk.layers) <= set(seen)
    order = [name for name in seen if name in walk.layers]
    assert order.index("image_encoder.blocks.1.attn.qkv") > order.index("image_encoder.blocks.0.mlp.lin2")
    assert order.index("mask_decoder.transformer.layers.0.self_attn.q_proj") > order.index("image_encoder.neck.2")
    assert all(len(inputs) == 2 for inputs in seen.values())
    first, later = (
        max(float(F.mse_loss(q, x) / x.var()) for x, q in seen[name])
        for name in ("image_encoder.blocks.0.attn.qkv", "image_encoder.blocks.1.attn.qkv")
    )
    assert first < 0.1 and later > 2 * first
