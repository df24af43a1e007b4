"""What hurts comes out on top: a tiny model with parts that are made bad on purpose."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.evaluate.sensitivity.measure import Sensitivity, block_of, measure, units_of
from tvm_ahcq.evaluate.sensitivity.probes import Probe, random_probes
from tvm_ahcq.evaluate.sensitivity.site_error import LayerError
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.quantizers.weight.weights import calibrate_weight

BLOCK = "image_encoder.blocks.0"
BAD_SITES = (f"{BLOCK}.mlp.lin2.input", f"{BLOCK}.attn.v", "mask_decoder.transformer.layers.1.mlp.lin1.input")
BAD_WEIGHT = f"{BLOCK}.mlp.lin1.weight"


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Wide pictures of coloured squares."""
    colours = [np.random.default_rng(seed).integers(0, 255, (6, 9, 3)) for seed in range(4)]
    return [np.kron(each, np.ones((16, 16, 1))).astype(np.uint8) for each in colours]


@pytest.fixture(scope="module")
def qmodel(pictures) -> QuantizedModel:
    """A tiny SAM with random weights at 8 bits, quantized in the plainest way."""
    torch.manual_seed(1)
    sam = build_sam_vit_t(
        image_size=64, depth=1, embed_dim=24, num_heads=2, global_attn_indexes=(0,), window_size=3, prompt_dim=32
    )
    plain = replace(ahcq.recipe("ahcq", bits=8), rounding="nearest", conditioning="none", equalise=False)
    return ahcq.quantize(from_module(sam.requires_grad_(False), "tiny"), pictures[:2], plain)


@pytest.fixture(scope="module")
def probes(pictures) -> list[Probe]:
    return random_probes(pictures[2:])


@pytest.fixture(scope="module")
def sensitivity(qmodel, probes) -> Sensitivity:
    return measure(qmodel, probes)


def with_bad_site(qmodel: QuantizedModel, site: str) -> QuantizedModel:
    """The site's quantizer is left a hundredth of its range."""
    params = qmodel.table.sites[site]
    bad = {
        "cag": lambda: replace(params, scales=tuple(0.01 * scale for scale in params.scales)),
        "hluq": lambda: replace(params, delta=0.01 * params.delta),
        "uniform": lambda: replace(params, scale=0.01 * params.scale),
    }[params.kind]()
    return replace(qmodel, table=replace(qmodel.table, sites={**qmodel.table.sites, site: bad}))


@pytest.mark.parametrize("site", BAD_SITES)
def test_a_site_with_a_terrible_quantizer_comes_out_on_top(site, qmodel, probes):
    found = measure(with_bad_site(qmodel, site), probes, "sites")
    assert found.worst(1)[0].unit.name == site
    assert min(found.sites, key=lambda each: each.sqnr).name == site
    layer = next(layer for layer in found.layers if site in layer.sites)
    assert found.worst_layers(1) == [layer]
    assert found.worst(1)[0].logits > 3 * found.worst(2)[1].logits


def test_a_weight_with_terrible_codes_comes_out_on_top(qmodel, probes):
    ranges = qmodel.table.weights[BAD_WEIGHT]
    bad = replace(ranges, scale=tuple(0.01 * scale for scale in ranges.scale))
    table = replace(qmodel.table, weights={**qmodel.table.weights, BAD_WEIGHT: bad})
    found = measure(replace(qmodel, table=table), probes, "sites")
    assert found.worst(1)[0].unit.name == BAD_WEIGHT
    assert min(found.weights, key=lambda each: each.sqnr).name == BAD_WEIGHT
    assert found.worst_layers(1)[0].name == BAD_WEIGHT.removesuffix(".weight")


@pytest.mark.parametrize("granularity, worst", [("layers", BAD_SITES[0].removesuffix(".input")), ("blocks", BLOCK)])
def test_a_coarser_granularity_finds_the_layer_or_block_of_a_bad_site(granularity, worst, qmodel, probes):
    found = measure(with_bad_site(qmodel, BAD_SITES[0]), probes[:1], granularity)
    assert found.granularity == granularity and found.worst(1)[0].unit.name == worst


def test_every_site_and_weight_is_measured_once(sensitivity, qmodel):
    names = [effect.unit.name for effect in sensitivity.effects]
    assert len(names) == len(set(names))
    assert set(names) == set(qmodel.table.sites) | set(qmodel.table.weights)
    assert {site.name for site in sensitivity.sites} == set(qmodel.table.sites)
    assert {weight.name for weight in sensitivity.weights} == set(qmodel.table.weights)
    assert [site for layer in sensitivity.layers for site in layer.sites] == [
        effect.unit.name for effect in sensitivity.effects if effect.unit.kind == "site"
    ]


def test_the_whole_models_masks_are_those_of_its_predictors(sensitivity, qmodel, probes):
    predictors = qmodel.float_predictor(), qmodel.fake_quant_predictor()
    for number, probe in enumerate(probes):
        boxes = [pair for pair in sensitivity.masks if pair.picture == number][len(probe.clicks) :]
        assert len(boxes) == len(probe.boxes)
        masks = []
        for predictor in predictors:
            predictor.set_image(probe.image)
            scaled = predictor.transform.apply_boxes(probe.boxes, probe.image.shape[:2])
            masks.append(predictor.predict_torch(None, None, scaled, multimask_output=False)[0][:, 0])
        for pair, exact, quantized in zip(boxes, *masks, strict=True):
            assert iou(pair.exact, exact) > 0.999  # float32 sums in another order
            np.testing.assert_array_equal(pair.quantized, quantized)


def test_fewer_bits_hurt_more(qmodel, sensitivity, pictures, probes):
    coarse = replace(qmodel.table.recipe, bits_weights=4, bits_activations=4)
    found = measure(ahcq.quantize(qmodel.model, pictures[:2], coarse), probes, "none")
    assert found.total.logits > 3 * sensitivity.total.logits and found.total.iou_loss >= sensitivity.total.iou_loss
    finer = [eight.sqnr > four.sqnr for four, eight in zip(found.sites, sensitivity.sites, strict=True)]
    assert np.mean(finer) > 0.9  # where values beyond the calibrated range are clipped, bits do not help


def test_a_rounded_weight_takes_effect_with_its_own_layer_only(qmodel, sensitivity, probes):
    weight = qmodel.model.params[BAD_WEIGHT]
    quantized = calibrate_weight(np.roll(weight, 1, axis=0), 8)  # codes of quite another weight
    ranges = type(qmodel.table.weights[BAD_WEIGHT]).of(quantized)
    table = replace(
        qmodel.table, weights={**qmodel.table.weights, BAD_WEIGHT: ranges}, params={BAD_WEIGHT: quantized.dequantize()}
    )
    found = measure(replace(qmodel, table=table), probes, "sites")
    before = {effect.unit.name: effect for effect in sensitivity.effects}
    for effect in found.effects:
        if effect.unit.name == BAD_WEIGHT:
            assert effect.logits > 10 * before[BAD_WEIGHT].logits
        else:
            assert effect == before[effect.unit.name]


def test_without_effects_errors_and_masks_remain(qmodel, sensitivity, probes):
    told = []
    found = measure(qmodel, probes, "none", announce=lambda *what: told.append(what))
    assert found.effects == () and found.worst() == [] and told == [("none", 0, 0.0)]
    assert [layer.error for layer in found.layers] == [layer.error for layer in sensitivity.layers]
    assert found.total == sensitivity.total and len(found.masks) == sum(probe.prompts for probe in probes)


def test_progress_is_told_to_the_end(qmodel, probes):
    steps: dict[str, list[tuple[int, int]]] = {}
    told = []
    measure(
        qmodel,
        probes[:1],
        "blocks",
        lambda what, done, total: steps.setdefault(what, []).append((done, total)),
        lambda *what: told.append(what),
    )
    ((granularity, parts, seconds),) = told
    assert (granularity, parts) == ("blocks", 6) and seconds > 0
    assert list(steps) == ["errors", "weights", "effect on masks"]
    assert all(told == [(n, len(told)) for n in range(1, len(told) + 1)] for told in steps.values())


def test_figures_are_json_without_infinities(sensitivity):
    text = json.dumps(sensitivity.to_dict(), allow_nan=False)
    figures = json.loads(text)
    assert figures["effects"][0]["name"] == sensitivity.worst(1)[0].unit.name
    assert len(figures["sites"]) == len(sensitivity.sites) and figures["prompts"] == 20
    lost = replace(sensitivity, total=replace(sensitivity.total, logits=float("inf")))
    assert json.loads(json.dumps(lost.to_dict(), allow_nan=False))["total"]["logits"] is None


def test_what_cannot_be_measured_is_refused(qmodel, probes):
    with pytest.raises(CalibrationError, match="pictures"):
        measure(qmodel, [])
    with pytest.raises(CalibrationError, match="click or box"):
        measure(qmodel, [Probe(probes[0].image, np.zeros((0, 2)), np.zeros((0, 4)))])
    with pytest.raises(ValueError, match="blocks"):
        measure(qmodel, probes, "channels")


def layer(name: str, op: str = "linear") -> LayerError:
    sites = tuple(f"{name}.{r}" for r in ("q", "k", "v", "probs")) if op == "attention" else (f"{name}.input",)
    return LayerError(name, op, "decode", sites, 0.0)


@pytest.mark.parametrize(
    "name, op, block",
    [
        ("image_encoder.blocks.3.attn.qkv", "linear", "image_encoder.blocks.3"),
        ("image_encoder.blocks.11.attn", "attention", "image_encoder.blocks.11"),
        ("image_encoder.neck.2", "conv2d", "image_encoder.neck"),
        ("mask_decoder.transformer.final_attn.q_proj", "linear", "mask_decoder.transformer.final_attn"),
        ("mask_decoder.transformer.final_attn", "attention", "mask_decoder.transformer.final_attn"),
        ("head", "linear", "head"),
    ],
)
def test_a_layer_belongs_to_its_block(name, op, block):
    assert block_of(layer(name, op)) == block


def test_units_hold_what_is_quantized_together():
    layers = [layer("b.0.attn", "attention"), layer("b.0.proj"), layer("b.1.lin")]
    coded = ["b.0.proj", "b.1.lin"]
    sites = units_of("sites", layers, coded)
    assert [unit.name for unit in sites] == [
        "b.0.attn.q",
        "b.0.attn.k",
        "b.0.attn.v",
        "b.0.attn.probs",
        "b.0.proj.input",
        "b.0.proj.weight",
        "b.1.lin.input",
        "b.1.lin.weight",
    ]
    assert all(len(unit.sites) + len(unit.layers) == 1 for unit in sites)
    first, second = units_of("blocks", layers, coded)
    assert (first.name, first.kind, first.layers) == ("b.0", "block", ("b.0.proj",)) and len(first.sites) == 5
    assert (second.sites, second.layers) == (("b.1.lin.input",), ("b.1.lin",))
    assert units_of("none", layers, coded) == []
