"""How well a mask matches the annotated one, as video benchmarks measure it: region (J) and contour (F)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_cdt
from scipy.spatial import KDTree

TOLERANCE = 0.008
"""Distance at which two contour pixels still match, as a part of the picture's diagonal (DAVIS)."""

BAND = 0.02
"""Half the width of the published AHCQ-SAM evaluator's bands, as a part of the picture's diagonal."""

_TINY = 1e-6
"""Added to areas of bands by the published evaluator."""


def contour(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower, or lower right neighbour.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool ``(H, W)``.

    Returns
    -------
    numpy.ndarray
        Bool ``(H, W)``. Beyond the picture there is nothing to differ from.
    """
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] = mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def contour_accuracy(found: np.ndarray, truth: np.ndarray) -> float:
    """F of DAVIS: harmonic mean of precision and recall of contour pixels.

    A contour pixel counts if the other contour has one within ``ceil(TOLERANCE * diagonal)`` pixels. Perazzi et al., A
    Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016, section 5.1, with the
    morphological approximation of the benchmark's own evaluator.

    Parameters
    ----------
    found, truth : numpy.ndarray
        Bool ``(H, W)``.

    Returns
    -------
    float
        0 to 1; 1 if neither mask has a contour, 0 if only one has.
    """
    own, other = np.argwhere(contour(found)), np.argwhere(contour(truth))
    if not len(own) or not len(other):
        return float(len(own) == len(other))
    radius = np.ceil(TOLERANCE * np.hypot(*truth.shape))
    precision = _share_within(own, other, radius)
    recall = _share_within(other, own, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share_within(points: np.ndarray, others: np.ndarray, radius: float) -> float:
    """Share of the points that have one of the others at most `radius` away."""
    distances, _ = KDTree(others).query(points, distance_upper_bound=radius + 0.5)
    return float((distances <= radius).mean())


def band(mask: np.ndarray) -> np.ndarray:
    """Pixels at most ``max(1, round(BAND * diagonal))`` steps from the outline, on either side.

    A step goes to one of four neighbours. Beyond the picture lies background.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool ``(H, W)``.

    Returns
    -------
    numpy.ndarray
        Bool ``(H, W)``.
    """
    if not mask.any():
        return np.zeros(mask.shape, bool)
    steps = max(1, round(BAND * float(np.hypot(*mask.shape))))
    grown = distance_transform_cdt(~mask, metric="taxicab") <= steps
    inside = distance_transform_cdt(np.pad(mask, 1), metric="taxicab")[1:-1, 1:-1] > steps
    return grown & ~inside


def band_accuracy(found: np.ndarray, truth: np.ndarray) -> float:
    """F of the evaluator that AHCQ-SAM was published with: overlap of bands around both outlines.

    It is higher than :func:`contour_accuracy` where outlines are far apart: the bands are 4 % of the diagonal wide.

    Parameters
    ----------
    found, truth : numpy.ndarray
        Bool ``(H, W)``.

    Returns
    -------
    float
        0 to 1.
    """
    own, other = band(found), band(truth)
    shared = np.logical_and(own, other).sum() + _TINY
    precision, recall = shared / (own.sum() + _TINY), shared / (other.sum() + _TINY)
    return float(2 * precision * recall / (precision + recall))
