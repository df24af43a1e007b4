"""How well a predictor finds the coins of ``skimage.data.coins`` from one click each."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ahcq.evaluate.datasets.coins import centre, coins

from .iou import iou

GOOD_COIN = 0.8
"""IoU from which on a coin counts as found."""


def coin_scores(predictor: Any) -> list[float]:
    """Return the IoU of each coin with the best scored of three masks of a click on its centre, ascending.

    Parameters
    ----------
    predictor : SamPredictor or SAM2ImagePredictor
        Ours or upstream's.
    """
    image, masks = coins()
    predictor.set_image(image)
    scores = []
    for mask in masks:
        found, quality, _ = predictor.predict(np.array([centre(mask)]), np.array([1]))
        scores.append(iou(found[quality.argmax()] > 0, mask))
    return sorted(scores)


def found_coins(scores: list[float]) -> int:
    """Return how many coins were found."""
    return sum(score >= GOOD_COIN for score in scores)
