"""Running a model with one part quantized: what is run again, what is put back, and what is compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.evaluate.sensitivity.mask_effect import MaskProbe, Unit, mask_effects
from tvm_ahcq.evaluate.sensitivity.probes import in_frame, random_probes
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.torch_exec.simulated_session import quantized_layers

LAYER = "image_encoder.blocks.0.mlp.lin1"
WEIGHT = Unit(f"{LAYER}.weight", "weight", (), (LAYER,), "encode_image")
NOTHING = Unit("nothing", "site", (), (), "encode_image")


@pytest.fixture(scope="module")
def qmodel() -> QuantizedModel:
    """A tiny SAM with random weights, quantized in the plainest way on a wide picture."""
    torch.manual_seed(1)
    sam = build_sam_vit_t(
        image_size=64, depth=1, embed_dim=24, num_heads=2, global_attn_indexes=(0,), window_size=3, prompt_dim=32
    )
    plain = replace(ahcq.recipe("ahcq"), rounding="nearest", conditioning="none", equalise=False)
    return ahcq.quantize(from_module(sam.requires_grad_(False), "tiny"), [picture(0)], plain)


def picture(seed: int) -> np.ndarray:
    colours = np.random.default_rng(seed).integers(0, 255, (6, 9, 3))
    return np.kron(colours, np.ones((16, 16, 1))).astype(np.uint8)


def probe_of(qmodel: QuantizedModel, changed: dict[str, np.ndarray] | None = None, **params: np.ndarray) -> MaskProbe:
    """A probe on two pictures; `changed` replaces parameters with their layer, `params` from the start."""
    spec, table = qmodel.model.spec, qmodel.table
    base = {**qmodel.model.params, **{name.replace("__", "."): value for name, value in params.items()}}
    frames = [in_frame(each, spec) for each in random_probes([picture(1), picture(2)])]
    coded = quantized_layers(table.with_codes({**base, **(changed or {})}))
    return MaskProbe(spec, qmodel.annotated, base, changed or {}, table.sites, coded, frames)


@pytest.fixture(scope="module")
def probe(qmodel) -> MaskProbe:
    return probe_of(qmodel)


def functions_run(probe: MaskProbe, unit: Unit, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Functions of the model that an effect runs."""
    run, names = probe._executor.run, []
    monkeypatch.setattr(probe._executor, "run", lambda name, *inputs: (names.append(name), run(name, *inputs))[1])
    probe.effect(unit)
    return names


def test_quantizing_nothing_changes_nothing(probe):
    effect = probe.effect(NOTHING)
    assert (effect.logits, effect.iou_loss) == (0.0, 0.0)


def test_the_image_is_encoded_again_only_for_parts_of_the_encoder(probe, qmodel, monkeypatch):
    site = next(name for name in qmodel.table.sites if name.startswith("mask_decoder"))
    decoder = Unit(site, "site", (site,), (), "decode")
    assert functions_run(probe, decoder, monkeypatch) == ["decode"] * 2
    assert functions_run(probe, WEIGHT, monkeypatch) == ["encode_image", "decode"] * 2
    again = probe.effect(replace(decoder, function="encode_image"))
    assert replace(again, unit=decoder) == probe.effect(decoder)


def test_the_effect_is_that_of_the_pictures_own_pixels(probe):
    effect = probe.effect(WEIGHT)
    difference, total, agreed = 0.0, 0.0, []
    for exact, found in zip(probe.logits, probe.quantized_logits(WEIGHT), strict=True):
        assert exact.shape == (10, 16, 16)
        exact, found = exact[:, :11].astype(np.float64), found[:, :11].astype(np.float64)  # 43 of 64 rows are picture
        difference, total = difference + np.square(found - exact).sum(), total + np.square(exact).sum()
        for a, b in zip(exact > 0, found > 0, strict=True):
            agreed.append((a & b).sum() / (a | b).sum() if (a | b).any() else 1)
    assert effect.logits == pytest.approx(np.sqrt(difference / total)) and effect.logits > 0
    assert effect.iou_loss == pytest.approx(1 - np.mean(agreed))


def test_changed_parameters_are_put_back(qmodel, probe):
    changed = {
        f"{LAYER}.weight": 0 * qmodel.model.params[f"{LAYER}.weight"],
        f"{LAYER}.bias": 0 * qmodel.model.params[f"{LAYER}.bias"] + 1,
    }
    other = probe_of(qmodel, changed)
    for exact, same in zip(probe.logits, other.logits, strict=True):
        np.testing.assert_array_equal(exact, same)
    assert other.effect(WEIGHT).logits > 3 * probe.effect(WEIGHT).logits
    assert other.effect(NOTHING).logits == 0


def test_a_changed_parameter_of_no_layer_belongs_to_the_model(qmodel, probe):
    name = "image_encoder.blocks.0.norm1.weight"
    other = probe_of(qmodel, {name: 3 * qmodel.model.params[name]})
    assert other.effect(NOTHING).logits == 0
    assert np.abs(other.logits[0] - probe.logits[0]).max() > 1e-3


def test_results_that_are_not_finite_rank_first(qmodel, probe):
    broken = probe_of(qmodel, {f"{LAYER}.bias": np.full_like(qmodel.model.params[f"{LAYER}.bias"], np.nan)})
    effects = mask_effects(broken, [NOTHING, WEIGHT])
    assert [effect.logits for effect in effects] == [0.0, float("inf")]
    assert 0 <= effects[1].iou_loss <= 1


def test_a_float_model_that_is_not_finite_is_refused(qmodel):
    bias = np.full_like(qmodel.model.params[f"{LAYER}.bias"], np.nan)
    with pytest.raises(CalibrationError, match="float model's masks are not finite"):
        probe_of(qmodel, None, **{f"{LAYER}.bias".replace(".", "__"): bias})
