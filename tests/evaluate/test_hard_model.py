"""Hardened models: the same outputs in float, and each pathology really there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tvm_ahcq as ahcq
from tvm_ahcq.api import float_predictor
from tvm_ahcq.calibrate.recorder import Recorder
from tvm_ahcq.evaluate.hard_model import HARD, Hardening, harden, links_of
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.evaluate.metrics.scene_accuracy import prompted_objects, segment_scene
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.driver import calibration_prompts
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.relay_passes.annotate import annotate
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.rewrite import name_parameters
from tvm_ahcq.scenes import generate
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import using_sites

EVERYTHING = replace(
    HARD,
    norm_spread=2.0,
    neck_spread=1.5,
    norm_offset=2.0,
    blind_direction=3.0,
    query_key_condition=30.0,
    value_condition=30.0,
    key_offset=5.0,
    value_offset=3.0,
    relu_spread=2.0,
)
"""Every pathology, all of them strong."""

SINGLE = {
    "norm_spread": 2.0,
    "neck_spread": 2.0,
    "norm_offset": 3.0,
    "blind_direction": 5.0,
    "query_key_condition": 50.0,
    "value_condition": 50.0,
    "key_offset": 5.0,
    "value_offset": 4.0,
    "relu_spread": 2.0,
}


@pytest.fixture(scope="module")
def tiny() -> FloatModel:
    """A tiny SAM with random weights: windows with padding, a global block, relative positions that are not zero."""
    torch.manual_seed(1)
    sam = build_sam_vit_t(
        image_size=128, depth=2, embed_dim=48, num_heads=2, global_attn_indexes=(1,), window_size=3, prompt_dim=32
    )
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.3)
            elif parameter.ndim == 1:  # norms and biases of a fresh model are all 1 and 0
                parameter.add_(0.2 * torch.randn_like(parameter))
    return from_module(sam.requires_grad_(False), "tiny")


@pytest.fixture(scope="module")
def vit_t() -> FloatModel:
    return ahcq.from_sam("vit_t")


def outputs(model: FloatModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embedding of a random image, and mask logits and scores of random prompts."""
    session = float_predictor(model).session
    image = (
        np.random.default_rng(3).normal(size=(1, 3, model.spec.image_size, model.spec.image_size)).astype(np.float32)
    )
    embedding = SamFunctions(session).encode(image)
    return embedding, *SamFunctions(session).decode(embedding, *calibration_prompts(model.spec.image_size, seed=1))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def at_sites(model: FloatModel) -> dict[str, np.ndarray]:
    """What passes each site on one image, rows of channels."""
    module = canonicalise(name_parameters(model.module, model.function_params))
    executor, recorder = TorchExecutor(annotate(module, recipe(), SAM), model.params), Recorder()
    image = (
        np.random.default_rng(3).normal(size=(1, 3, model.spec.image_size, model.spec.image_size)).astype(np.float32)
    )
    with using_sites(recorder), torch.no_grad():
        embedding = executor.run("encode_image", image)
        executor.run("decode", embedding, *calibration_prompts(model.spec.image_size, seed=1))
    return {site: np.concatenate(rows) for site, rows in recorder.rows.items()}


def spread(rows: np.ndarray) -> float:
    """Octaves between the 10th and the 90th percentile of the channel ranges."""
    low, high = np.percentile(rows.max(0) - rows.min(0), [10, 90])
    return float(np.log2(high / low))


@pytest.mark.parametrize("name", SINGLE)
def test_each_pathology_leaves_the_float_outputs(tiny, name):
    hardened = harden(tiny, Hardening(**{name: SINGLE[name]}))
    assert any(hardened.params[key] is not tiny.params[key] for key in tiny.params)
    for found, expected in zip(outputs(hardened), outputs(tiny), strict=True):
        assert relative(found, expected) < 1e-3


def test_all_together_leave_the_float_outputs(tiny):
    for seed in (0, 1):
        for found, expected in zip(outputs(harden(tiny, EVERYTHING, seed)), outputs(tiny), strict=True):
            assert relative(found, expected) < 1e-3


def test_vit_t_segments_the_same_when_hardened(vit_t):
    predictors = [float_predictor(model) for model in (vit_t, harden(vit_t, HARD), harden(vit_t, EVERYTHING))]
    for number in (0, 1):
        scene = generate(number)
        objects = prompted_objects(scene)
        expected, *found = [segment_scene(predictor, scene, objects) for predictor in predictors]
        for each in found:
            for way in ("click", "single_click", "box"):
                pairs = zip(getattr(each, way), getattr(expected, way), strict=True)
                assert min(iou(a, b) for a, b in pairs) > 0.999
        features = [predictor.features for predictor in predictors]
        assert max(relative(each, features[0]) for each in features[1:]) < 1e-3


def test_channels_after_norms_differ_in_range(tiny):
    sites, hard = at_sites(tiny), at_sites(harden(tiny, Hardening(norm_spread=2.0, neck_spread=2.0)))
    for link in (*links_of(tiny).norms, *links_of(tiny).neck):
        assert spread(sites[f"{link.layer}.input"]) < 1.7
        assert spread(hard[f"{link.layer}.input"]) > 3


def test_channels_after_norms_lie_off_zero_except_where_zeros_are_padded(tiny):
    sites, hard = at_sites(tiny), at_sites(harden(tiny, Hardening(norm_offset=3.0)))
    for link in (*links_of(tiny).norms, *links_of(tiny).neck):
        site = f"{link.layer}.input"
        offsets = [np.abs(rows.mean(0) / rows.std(0)).mean() for rows in (sites[site], hard[site])]
        assert offsets[0] < 1
        assert offsets[1] == pytest.approx(offsets[0], rel=1e-5) if link.padded else offsets[1] > 1.8
    assert [link.padded for link in (*links_of(tiny).norms, *links_of(tiny).neck)] == [True, False, False, False, True]


def test_a_blind_direction_makes_weights_ill_conditioned(vit_t):
    hard = harden(vit_t, Hardening(blind_direction=20.0))
    for link in links_of(vit_t).norms:
        before, after = (np.linalg.cond(model.params[f"{link.layer}.weight"]) for model in (vit_t, hard))
        assert after > 8 * before


def test_projections_of_mixed_heads_are_ill_conditioned(vit_t):
    hard = harden(vit_t, Hardening(query_key_condition=100.0, value_condition=100.0))
    for link in links_of(vit_t).attentions:
        for part in (link.query, link.key, link.value):
            conditions = []
            for model in (vit_t, hard):
                head = model.params[f"{part.layer}.weight"][part.rows][: link.head_dim]
                conditions.append(np.linalg.cond(head))
            assert conditions[1] > 4 * conditions[0]


def test_mixing_may_be_kept_to_the_decoder(tiny):
    hard = harden(tiny, Hardening(query_key_condition=10.0, value_condition=10.0, encoder_attention=False))
    changed = [name for name in tiny.params if hard.params[name] is not tiny.params[name]]
    assert changed and all(name.startswith("mask_decoder.") for name in changed)


def test_keys_of_the_decoder_become_bimodal(vit_t):
    sites, hard = at_sites(vit_t), at_sites(harden(vit_t, Hardening(key_offset=5.0)))
    for link in links_of(vit_t).attentions:
        if link.in_encoder or "token_to_image" not in link.name:
            continue
        middle = []
        for rows in (sites[f"{link.name}.k"], hard[f"{link.name}.k"]):
            counts, _ = np.histogram(rows, bins=9, range=(-np.abs(rows).max(), np.abs(rows).max()))
            middle.append(counts[4] / counts.max())
        assert middle[0] > 0.9 and middle[1] < 0.6


def test_hidden_units_of_the_decoder_get_heavy_tails(vit_t):
    sites, hard = at_sites(vit_t), at_sites(harden(vit_t, Hardening(relu_spread=2.0)))
    for site in (name for name in sites if name.startswith("mask_decoder.") and name.endswith("lin2.input")):
        peaks = [rows.max() / rows.std() for rows in (sites[site], hard[site])]
        assert peaks[1] > 1.5 * peaks[0]


def test_values_lie_off_zero(vit_t):
    sites, hard = at_sites(vit_t), at_sites(harden(vit_t, Hardening(value_offset=4.0)))
    for link in links_of(vit_t).attentions:
        sizes = [np.abs(each[f"{link.name}.v"]) for each in (sites, hard)]
        ratio = [size.mean() / size.std() for size in sizes]
        assert ratio[1] == pytest.approx(ratio[0], rel=1e-3) if link.in_encoder else ratio[1] > 1.5 * ratio[0]


def test_a_seed_decides_and_each_pathology_has_its_own_numbers(tiny):
    first, again, other = (harden(tiny, EVERYTHING, seed).params for seed in (5, 5, 6))
    name = "image_encoder.blocks.0.norm2.weight"
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first[name], other[name])
    alone = harden(tiny, Hardening(norm_spread=EVERYTHING.norm_spread), 5).params
    np.testing.assert_array_equal(alone[name], first[name])


def test_no_pathology_is_the_same_model_under_another_name(tiny):
    same = harden(tiny, Hardening())
    assert same.name == "tiny-hard" and all(same.params[key] is tiny.params[key] for key in tiny.params)


def test_a_norm_with_a_dead_channel_keeps_clear_of_the_blind_direction(tiny):
    gain = tiny.params["image_encoder.blocks.1.norm2.weight"].copy()
    gain[3] = 0
    dead = replace(tiny, params={**tiny.params, "image_encoder.blocks.1.norm2.weight": gain})
    hard = harden(dead, EVERYTHING)
    assert np.isfinite(hard.params["image_encoder.blocks.1.mlp.lin1.weight"]).all()
    assert max(relative(a, b) for a, b in zip(outputs(hard), outputs(dead), strict=True)) < 1e-3


def test_strengths_out_of_range_are_refused():
    for bad in ({"norm_spread": -1.0}, {"query_key_condition": 0.5}, {"key_offset": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Hardening(**bad)
