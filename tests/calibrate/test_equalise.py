"""Equalisation of a whole model: the same float function, channels that are kinder to quantizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tvm.ir import IRModule

from tvm_ahcq.calibrate.equalise import equalise
from tvm_ahcq.calibrate.images import load_calibration
from tvm_ahcq.calibrate.recorder import Recorder, observe
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.evaluate.hard_model import Hardening, harden
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.driver import calibration_prompts
from tvm_ahcq.models.sam.exchanges import exchanges
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.weight.equalise import apply_equalisation, key_biases
from tvm_ahcq.relay_passes.annotate import annotate
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.rewrite import name_parameters
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import using_sites

UNEVEN = Hardening(norm_spread=2.0, key_offset=4.0, value_offset=2.0, relu_spread=2.0)


class WholeRecorder(Recorder):
    """Keeps every row, so that two observations can be compared."""

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        x = super().activation(site, x, activation)
        self.rows[site][-1] = x.detach().reshape(-1, x.shape[-1]).numpy().copy()
        return x


@pytest.fixture(scope="module")
def annotated(tiny_model) -> IRModule:
    module = canonicalise(name_parameters(tiny_model.module, tiny_model.function_params))
    return annotate(module, recipe(), SAM)


@pytest.fixture(scope="module")
def images(tiny_model, pictures) -> list[np.ndarray]:
    return list(load_calibration(pictures, tiny_model.spec, 3))


@pytest.fixture(scope="module")
def hard(tiny_model) -> FloatModel:
    """The tiny model with uneven channels, offsets, and biases that are not zero."""
    rng = np.random.default_rng(0)
    params = {
        name: p + (0.2 * rng.normal(size=p.shape)).astype(np.float32) * (p.ndim == 1)
        for name, p in tiny_model.params.items()
    }
    return harden(replace(tiny_model, params=params), UNEVEN)


@pytest.fixture(scope="module")
def recorded(annotated, images) -> Callable[[dict], Recorder]:
    """What passes the sites with given parameters, every row of it."""

    def record(params: dict[str, np.ndarray]) -> Recorder:
        executor, recorder = TorchExecutor(annotated, params), WholeRecorder()
        with using_sites(recorder), torch.no_grad():
            for count, image in enumerate(images):
                embedding = executor.run("encode_image", image)
                executor.run("decode", embedding, *calibration_prompts(image.shape[-1], seed=count))
        return recorder

    return record


@pytest.fixture(scope="module")
def changes(annotated, hard, recorded) -> dict[str, np.ndarray]:
    return equalise(annotated, hard.params, recorded(hard.params), exchanges(hard.params))


def assert_same_function(annotated: IRModule, first: dict, second: dict, prompts: dict) -> None:
    executors = [TorchExecutor(annotated, params) for params in (first, second)]
    for function, inputs in prompts.items():
        found = [executor.run(function, *inputs) for executor in executors]
        pairs = zip(*[(each,) if isinstance(each, torch.Tensor) else each for each in found], strict=True)
        for wanted, got in pairs:
            assert float((got - wanted).norm() / wanted.norm()) < 1e-4


def test_the_float_function_stays(annotated, hard, changes, prompts):
    """Also in padded windows, with relative positions, and in the decoder with and without a mask."""
    assert_same_function(
        annotated, hard.params, apply_equalisation(hard.params, changes, exchanges(hard.params)), prompts
    )


def test_everything_that_can_be_changed_is(hard, changes):
    assert set(changes) == {place.name for place in exchanges(hard.params)} | {
        name for name, _, _ in key_biases(exchanges(hard.params))
    }


def test_equalised_channels_ask_for_no_more(annotated, hard, changes, recorded):
    """A norm's reader is itself rescaled by rows, so only the other places are balanced exactly."""
    equalised = apply_equalisation(hard.params, changes, exchanges(hard.params))
    again = equalise(annotated, equalised, recorded(equalised), exchanges(equalised))
    for place in exchanges(hard.params):
        if not place.name.endswith(("norm1", "norm2")):
            np.testing.assert_allclose(again[place.name], 1, rtol=1e-2, err_msg=place.name)
    for name, _, _ in key_biases(exchanges(hard.params)):
        np.testing.assert_allclose(again[name], 0, atol=1e-3, err_msg=name)


def spread(rows: np.ndarray) -> float:
    """Octaves between the 10th and the 90th percentile of the channels' greatest magnitudes."""
    low, high = np.percentile(np.abs(rows).max(0), [10, 90])
    return float(np.log2(high / low))


def test_ranges_are_better_balanced(hard, changes, recorded):
    before, after = (
        recorded(params).rows
        for params in (hard.params, apply_equalisation(hard.params, changes, exchanges(hard.params)))
    )
    for site in before:
        if site.endswith(("attn.qkv.input", "mlp.lin1.input")) and site.startswith("image_encoder"):
            assert spread(np.concatenate(after[site])) < 0.8 * spread(np.concatenate(before[site]))
        if site.startswith("mask_decoder") and site.endswith("lin2.input"):
            live = np.concatenate(before[site]).max(0) > 0
            found = [spread(np.concatenate(rows[site])[:, live]) for rows in (before, after)]
            assert found[1] < 0.8 * found[0]
        if site.endswith(".k") and "token_to_image" in site:
            keys = np.concatenate(after[site])
            assert np.abs(keys.max(0) + keys.min(0)).max() < 1e-2 * np.abs(keys).max()


def test_dead_channels_do_no_harm(annotated, hard, recorded, prompts):
    params = {name: array.copy() for name, array in hard.params.items()}
    params["image_encoder.blocks.0.norm1.weight"][3] = params["image_encoder.blocks.0.norm1.bias"][3] = 0
    params["image_encoder.blocks.1.attn.qkv.weight"][:, 5] = 0
    params["image_encoder.blocks.1.attn.proj.weight"][:, 7] = 0
    params["mask_decoder.transformer.layers.0.mlp.lin1.weight"][9] = 0
    params["mask_decoder.transformer.layers.0.mlp.lin1.bias"][9] = -1
    changes = equalise(annotated, params, recorded(params), exchanges(params))
    assert all(np.isfinite(values).all() for values in changes.values())
    assert changes["image_encoder.blocks.0.norm1"][3] == changes["image_encoder.blocks.1.norm1"][5] == 1
    assert changes["image_encoder.blocks.1.attn.v"][7] == changes["mask_decoder.transformer.layers.0.mlp.lin1"][9] == 1
    assert_same_function(annotated, params, apply_equalisation(params, changes, exchanges(params)), prompts)


def test_one_image_is_enough(annotated, hard, images, prompts):
    seen = observe(TorchExecutor(annotated, hard.params), Samples(hard.spec, images[:1]), lambda *_: None)
    changes = equalise(annotated, hard.params, seen, exchanges(hard.params))
    assert_same_function(
        annotated, hard.params, apply_equalisation(hard.params, changes, exchanges(hard.params)), prompts
    )


def test_what_calibration_has_not_seen_stays(annotated, hard):
    assert equalise(annotated, hard.params, Recorder(), exchanges(hard.params)) == {}
