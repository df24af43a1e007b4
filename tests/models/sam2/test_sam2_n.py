"""``sam2_n``: the SAM 2 whose weights come along."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.api import float_predictor
from tvm_ahcq.evaluate.metrics.coin_scores import coin_scores, found_coins
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.sam2_n import build_sam2_n
from tvm_ahcq.models.sam2.variants import EMBEDDED_WEIGHTS


@pytest.fixture(scope="module")
def sam2_n() -> FloatModel:
    return ahcq.from_sam2("sam2_n")


def test_it_is_small_and_has_a_memory() -> None:
    module = build_sam2_n()
    assert sum(parameter.numel() for parameter in module.parameters()) <= 8_000_000
    assert EMBEDDED_WEIGHTS.stat().st_size <= 16_000_000
    assert any(name.startswith("memory_attention.") for name in module.state_dict())


def test_its_weights_are_found_without_a_checkpoint(sam2_n: FloatModel) -> None:
    assert (sam2_n.name, sam2_n.spec.image_size) == ("sam2_n", 256)
    assert all(np.isfinite(value).all() and value.dtype == np.float32 for value in sam2_n.params.values())


def test_a_click_finds_a_coin(sam2_n: FloatModel) -> None:
    assert found_coins(coin_scores(float_predictor(sam2_n))) >= 20
