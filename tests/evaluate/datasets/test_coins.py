"""The photo of coins and its masks."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.evaluate.datasets.coins import centre, coins


def test_the_masks_are_22_round_regions_brighter_than_what_is_around_them():
    image, masks = coins()
    assert image.shape == (*masks.shape[1:], 3) and image.dtype == np.uint8
    assert len(masks) == 22 and masks.sum(0).max() == 1
    background = image[~masks.any(0), 0].mean()
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.8 < height / width < 1.25
        assert 0.7 < mask.sum() / (np.pi / 4 * height * width) < 1.05
        assert image[mask, 0].mean() > background + 30


def test_the_centre_is_the_mean_pixel():
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:8] = True
    assert centre(mask) == (5.0, 3.0)
