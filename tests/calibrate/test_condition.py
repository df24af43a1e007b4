"""Published ACNR over a whole model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.calibrate.condition import condition
from tvm_ahcq.calibrate.images import load_calibration
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.weight.acnr import MIN_CONDITION
from tvm_ahcq.relay_passes.annotate import layers

ILL = "image_encoder.blocks.0.mlp.lin1.weight"
DEAD = "image_encoder.blocks.1.attn.qkv.weight"


@pytest.fixture(scope="module")
def model(tiny_model) -> FloatModel:
    """One weight with a condition number of 10**4, one with a column of zeros, one well conditioned."""
    params = dict(tiny_model.params)
    left, _, right = np.linalg.svd(params[ILL], full_matrices=False)
    params[ILL] = ((left * np.geomspace(1, 1e-4, len(right))) @ right).astype(np.float32)
    params[DEAD] = params[DEAD].copy()
    params[DEAD][:, 5] = 0
    return replace(tiny_model, params=params)


@pytest.fixture(scope="module")
def nearest(model, pictures) -> QuantizedModel:
    return quantize(model, pictures, recipe("minmax"))


@pytest.fixture(scope="module")
def images(model, pictures) -> list[np.ndarray]:
    return list(load_calibration(pictures, model.spec, 3))


@pytest.fixture(scope="module")
def found(nearest, model, images):
    return condition(nearest.annotated, model.params, nearest.table, Samples(model.spec, images))


def test_every_matrix_is_visited_and_no_convolution(nearest, model, found):
    weights = {layer.weight for layer in layers(nearest.annotated).values()}
    assert set(found) == {name for name in weights if model.params[name].ndim == 2}
    assert any(model.params[name].ndim == 4 for name in weights)
    assert all(found[name].weight.shape == model.params[name].shape for name in found)


def test_condition_numbers_fall_where_they_are_high(model, found):
    assert found[ILL].cond_before == pytest.approx(1e4, rel=1e-2)
    assert found[ILL].cond_after < 100
    assert np.linalg.cond(found[ILL].weight) == pytest.approx(found[ILL].cond_after, rel=1e-2)
    assert all(each.cond_after <= each.cond_before for each in found.values())


def test_well_conditioned_weights_are_left_alone(model, found):
    alone = [name for name, each in found.items() if each.cond_before < MIN_CONDITION]
    assert alone
    for name in alone:
        np.testing.assert_array_equal(found[name].weight, model.params[name])


def test_a_column_of_zeros_stays_one(found):
    assert not found[DEAD].weight[:, 5].any() and np.isfinite(found[DEAD].weight).all()


def test_the_published_slip_holds_singular_values_down_more(nearest, model, images, found):
    table = replace(nearest.table, recipe=replace(nearest.table.recipe, faults=("doubled_energy",)))
    faulty = condition(nearest.annotated, model.params, table, Samples(model.spec, images))
    assert (faulty[ILL].weight != found[ILL].weight).any()
    assert faulty[ILL].cond_after > found[ILL].cond_after


def test_progress_is_told_of_every_layer(nearest, model, images):
    steps = []
    condition(
        nearest.annotated,
        model.params,
        nearest.table,
        Samples(model.spec, images[:1]),
        lambda *step: steps.append(step),
    )
    assert [done for _, done, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][1] == steps[-1][2]
