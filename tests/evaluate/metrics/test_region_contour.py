"""J and F against the algorithms of the evaluators that define them, with dilation by discs and repeated steps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from skimage.morphology import disk

from tvm_ahcq.evaluate.metrics.region_contour import band, band_accuracy, contour, contour_accuracy


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of equal size that are alike; of some seeds empty, full, at the border, or a few pixels."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(2, 260, 2)
    field = gaussian_filter(rng.normal(size=(height, width)), rng.uniform(0.3, 12))
    level = np.quantile(field, rng.uniform(0.02, 0.99))
    shift = rng.integers(-12, 13, 2)
    first, second = field > level, np.roll(field, shift, (0, 1)) > level + rng.normal(0, 0.1) * field.std()
    if seed % 9 == 0:
        first = np.full_like(first, seed % 2 == 0)
    if seed % 15 == 0:
        second = np.full_like(second, seed % 4 == 0)
    return first, second


def oracle_contour(mask: np.ndarray) -> np.ndarray:
    """As DAVIS's evaluator: beyond the picture is background; then the last row and column are corrected."""
    padded = np.pad(mask, ((0, 1), (0, 1)))
    right, lower, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    edge = (mask ^ right) | (mask ^ lower) | (mask ^ diagonal)
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ lower[:, -1]
    edge[-1, -1] = False
    return edge


def oracle_f(found: np.ndarray, truth: np.ndarray) -> float:
    """F of DAVIS by dilating each contour with a disc."""
    disc = disk(int(np.ceil(0.008 * np.linalg.norm(found.shape))))
    own, other = oracle_contour(found), oracle_contour(truth)
    if not own.any() or not other.any():
        return float(own.any() == other.any())
    precision = (own & binary_dilation(other, disc)).sum() / own.sum()
    recall = (other & binary_dilation(own, disc)).sum() / other.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def oracle_band(mask: np.ndarray) -> np.ndarray:
    """The band between a mask dilated and eroded step by step."""
    steps = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    return binary_dilation(mask, iterations=steps) ^ binary_erosion(mask, iterations=steps)


@pytest.mark.parametrize("seed", range(45))
def test_contours_and_their_accuracy_are_those_of_davis(seed: int) -> None:
    first, second = blobs(seed)
    np.testing.assert_array_equal(contour(first), oracle_contour(first))
    assert contour_accuracy(first, second) == pytest.approx(oracle_f(first, second), abs=1e-12)


@pytest.mark.parametrize("seed", range(45))
def test_bands_are_those_of_repeated_dilation_and_erosion(seed: int) -> None:
    first, second = blobs(seed)
    own, other = oracle_band(first), oracle_band(second)
    np.testing.assert_array_equal(band(first), own)
    shared = (own & other).sum() + 1e-6
    precision, recall = shared / (own.sum() + 1e-6), shared / (other.sum() + 1e-6)
    assert band_accuracy(first, second) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-12)


def test_a_mask_matches_itself_and_an_empty_one_nothing() -> None:
    mask, empty = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    assert contour_accuracy(mask, mask) == band_accuracy(mask, mask) == contour_accuracy(empty, empty) == 1
    assert contour_accuracy(mask, empty) == contour_accuracy(empty, mask) == 0


def test_bands_forgive_what_contours_do_not() -> None:
    mask = np.zeros((480, 480), bool)
    mask[150:300, 150:300] = True
    moved = np.roll(mask, 10, axis=1)
    assert contour_accuracy(moved, mask) < 0.6 < 0.7 < band_accuracy(moved, mask)
