"""Signs of two-sided keys go into their projections, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tvm.ir import IRModule

from tvm_ahcq.api import quantize
from tvm_ahcq.calibrate.fold_key_signs import fold_key_signs
from tvm_ahcq.calibrate.images import load_calibration
from tvm_ahcq.calibrate.recorder import Recorder, observe
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.models.sam.exchanges import exchanges
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.weight.big import estimate_density
from tvm_ahcq.quantizers.weight.equalise import apply_equalisation
from tvm_ahcq.relay_passes.annotate import annotate
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.rewrite import name_parameters
from tvm_ahcq.torch_exec.executor import TorchExecutor

NAME = "mask_decoder.transformer.final_attn_token_to_image"


@pytest.fixture(scope="module")
def annotated(tiny_model) -> IRModule:
    module = canonicalise(name_parameters(tiny_model.module, tiny_model.function_params))
    return annotate(module, recipe(), SAM)


@pytest.fixture(scope="module")
def two_sided(tiny_model) -> dict[str, np.ndarray]:
    """Keys of one attention far off zero, on either side; a single peak everywhere else."""
    name = f"{NAME}.k_proj.bias"
    signs = np.where(np.arange(len(tiny_model.params[name])) % 2, 6.0, -6.0).astype(np.float32)
    return {**tiny_model.params, name: tiny_model.params[name] + signs}


@pytest.fixture(scope="module")
def images(tiny_model, pictures) -> Samples:
    return Samples(tiny_model.spec, list(load_calibration(pictures, tiny_model.spec, 3)))


def seen(annotated: IRModule, params: dict[str, np.ndarray], images: Samples) -> Recorder:
    return observe(TorchExecutor(annotated, params), images, lambda *_: None)


def test_bimodal_keys_become_unimodal(annotated, two_sided, images):
    before = seen(annotated, two_sided, images)
    changes = fold_key_signs(annotated, two_sided, before, SAM.foldable_signs)
    assert set(changes) == {f"{NAME}.signs"}
    np.testing.assert_array_equal(np.abs(changes[f"{NAME}.signs"]), 1)
    after = seen(annotated, apply_equalisation(two_sided, changes, exchanges(two_sided)), images)
    keys = [np.concatenate(recorder.rows[f"{NAME}.k"]) for recorder in (before, after)]
    assert estimate_density(keys[0]).bimodal and not estimate_density(keys[1]).bimodal
    assert np.ptp(keys[1]) < 0.7 * np.ptp(keys[0])


def test_the_float_function_stays(annotated, two_sided, images, prompts):
    recorder = seen(annotated, two_sided, images)
    changes = fold_key_signs(annotated, two_sided, recorder, SAM.foldable_signs)
    changed = apply_equalisation(two_sided, changes, exchanges(two_sided))
    executors = [TorchExecutor(annotated, params) for params in (two_sided, changed)]
    for function in ("decode", "decode_mask"):
        wanted, got = (executor.run(function, *prompts[function]) for executor in executors)
        for one, other in zip(wanted, got, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_unimodal_keys_are_left_alone(annotated, tiny_model, images):
    recorder = seen(annotated, tiny_model.params, images)
    assert fold_key_signs(annotated, tiny_model.params, recorder, SAM.foldable_signs) == {}


def test_the_published_slip_erases_a_dead_key_without_infinities(annotated, two_sided, images):
    params = {name: array.copy() for name, array in two_sided.items()}
    params[f"{NAME}.k_proj.weight"][3] = params[f"{NAME}.k_proj.bias"][3] = 0
    recorder = seen(annotated, params, images)
    mended, slip = (
        fold_key_signs(annotated, params, recorder, SAM.foldable_signs, zero)[f"{NAME}.signs"] for zero in (False, True)
    )
    assert mended[3] == 1 and slip[3] == 0
    changed = apply_equalisation(params, {f"{NAME}.signs": slip}, exchanges(params))
    assert not changed[f"{NAME}.q_proj.weight"][3].any() and np.isfinite(changed[f"{NAME}.q_proj.weight"]).all()


def test_signs_outlast_equalisation(tiny_model, two_sided, pictures):
    """Both act on the same queries and keys; the prepared model still computes what the float model does."""
    chosen = replace(recipe("minmax"), bimodal=True, equalise=True)
    model = replace(tiny_model, params=two_sided)
    quantized = quantize(model, pictures[:1], chosen)
    assert {f"{NAME}.signs", f"{NAME}.qk", f"{NAME}.k_proj.bias"} <= set(quantized.table.equalisation)
    keys = quantized.prepared.params[f"{NAME}.k_proj.weight"] / two_sided[f"{NAME}.k_proj.weight"]
    np.testing.assert_array_equal(np.sign(keys[:, 0]), quantized.table.equalisation[f"{NAME}.signs"])
