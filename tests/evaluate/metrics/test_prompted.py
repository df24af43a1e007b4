"""Clicks and boxes that stand for an object."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.evaluate.datasets.object_prompts import deepest_pixel, tight_box
from tvm_ahcq.evaluate.metrics.prompted import batches


def depth_by_definition(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel of a mask to the nearest pixel outside it; outside the picture is outside."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    depth = np.zeros(padded.shape)
    for pixel in np.argwhere(padded):
        depth[tuple(pixel)] = np.sqrt(((outside - pixel) ** 2).sum(1).min())
    return depth[1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(5))
def test_the_click_is_the_deepest_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((4, 5)) < 0.5, np.ones((6, 6))).astype(bool)
    mask[rng.integers(0, 24), rng.integers(0, 30)] ^= True
    depth = depth_by_definition(mask)
    x, y = deepest_pixel(mask)
    assert mask[y, x] and depth[y, x] == depth.max()


def test_an_object_cut_by_the_edge_of_the_picture_is_clicked_inside() -> None:
    mask = np.zeros((20, 30), bool)
    mask[:, :11] = True
    assert deepest_pixel(mask)[0] == 5


def test_a_box_ends_one_pixel_beyond_the_object() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:8, 10:30] = True
    assert tight_box(mask) == (10, 3, 30, 8)


def test_batches_cover_all_and_stay_small() -> None:
    parts = list(batches(50, (2000, 3000)))
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(50))
    assert max(part.stop - part.start for part in parts) * 2000 * 3000 < 2**26
    assert list(batches(3, (10**5, 10**5))) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert list(batches(0, (4, 4))) == []
