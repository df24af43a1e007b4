"""Mixed precision on a tiny model: nothing raised where nothing need be, the worst first otherwise, an end in any
case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tvm_ahcq.errors import CalibrationError, RecipeError
from tvm_ahcq.evaluate.mixed_precision import raise_bits
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.quantizers.core.recipe import Recipe, recipe


@pytest.fixture(scope="module")
def model() -> FloatModel:
    torch.manual_seed(2)
    sam = build_sam_vit_t(
        image_size=64, depth=1, embed_dim=32, num_heads=2, global_attn_indexes=(0,), window_size=3, prompt_dim=32
    )
    return from_module(sam.requires_grad_(False), "tiny")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(2)]


@pytest.fixture(scope="module")
def plain() -> Recipe:
    return replace(recipe("minmax"), name="plain")


def test_a_bound_that_is_met_raises_nothing(model, pictures, plain):
    found = raise_bits(model, pictures, plain, 0.99)
    assert found.raised == {} and len(found.drops) == 1 and found.drops[0] <= 0.99


def test_what_hurts_most_gets_more_bits_until_the_bound_is_met(model, pictures, plain):
    at_first = raise_bits(model, pictures, plain, 0.99).drops[0]
    bound = 0.5 * at_first
    found = raise_bits(model, pictures, plain, bound)
    assert found.drops[0] == pytest.approx(at_first) and found.drops[-1] <= bound
    assert all(drop > bound for drop in found.drops[:-1])
    assert found.raised and set(found.raised.values()) <= {6, 8}
    table = found.model.table
    assert dict(table.recipe.raised) == found.raised
    for name, bits in found.raised.items():
        assert (table.sites.get(name) or table.weights[name]).bits == bits
    assert found.model.sites == (len(table.sites), len(table.sites))


def test_a_bound_that_8_bits_cannot_meet_is_refused(model, pictures, plain):
    with pytest.raises(CalibrationError, match="8 bits everywhere"):
        raise_bits(model, pictures, plain, 1e-9)


@pytest.mark.parametrize("bound", [0, 1, -0.1, np.nan])
def test_a_bound_that_makes_no_sense_is_refused(model, pictures, plain, bound):
    with pytest.raises(RecipeError, match="between 0 and 1"):
        raise_bits(model, pictures, plain, bound)
