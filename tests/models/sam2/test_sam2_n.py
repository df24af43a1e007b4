"""``sam2_n``: the SAM 2 whose weights come along."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.api import float_predictor, float_session
from tvm_ahcq.evaluate.datasets.coins import centre, coins
from tvm_ahcq.evaluate.metrics.coin_scores import GOOD_COIN, coin_scores, found_coins
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.sam2_n import build_sam2_n
from tvm_ahcq.models.sam2.variants import EMBEDDED_WEIGHTS
from tvm_ahcq.models.sam2.video_predictor import SAM2VideoPredictor


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


def test_coins_of_a_photograph_are_followed_while_the_camera_pans() -> None:
    """From one click each, in a real picture that moves a few pixels a frame."""
    picture, masks = coins()
    offsets = [(3 * step, 5 * step) for step in range(4)]
    height, width = (size - 40 for size in picture.shape[:2])

    def crop(image: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
        y, x = offset
        return image[y : y + height, x : x + width]

    shown = [mask for mask in masks if all(crop(mask, offset).sum() == mask.sum() for offset in offsets)]
    predictor = SAM2VideoPredictor(float_session(ahcq.from_sam2("sam2_n", video=True)))
    state = predictor.init_state([crop(picture, offset) for offset in offsets])
    for name, mask in enumerate(shown[:4]):
        predictor.add_new_points_or_box(state, 0, name, points=[centre(mask)], labels=[1])
    followed = [logits[:, 0] > 0 for _, _, logits in predictor.propagate_in_video(state)]
    last = [iou(found, crop(mask, offsets[-1])) for found, mask in zip(followed[-1], shown[:4], strict=True)]
    assert len(followed) == len(offsets) and np.mean(last) >= GOOD_COIN
