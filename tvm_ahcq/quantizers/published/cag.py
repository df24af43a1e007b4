"""CAG's grouping as published: k-means on raw (scale, zero point) pairs, in steps to 4 groups.

The pair is not normalised, so zero points decide and scales hardly count; clustering the ranges instead ("hull") is a
simple repair. The default is the grouping by error of :mod:`tvm_ahcq.quantizers.activation.cag`. See
docs/quantizers.md#cag.
"""

from __future__ import annotations

import numpy as np

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.core.kmeans import kmeans
from tvm_ahcq.quantizers.core.range_rule import range_rule

STEPS = (8, 4, 2, 1)
"""Groups of the successive steps, as multiples of the final number; reconstruction takes one at 20, 40, 60 and 80 %."""

METHODS = ("pairs", "hull")

_STARTS = 10
"""k-means starts; the published code's library had 10 by default, later 1."""


def per_channel_params(low: np.ndarray, high: np.ndarray, bits: int) -> CagParams:
    """Return a quantizer for each channel from its range, the start of the grouping.

    Parameters
    ----------
    low, high : numpy.ndarray
        ``(C,)`` least and greatest values, published averaged over images (:class:`.average_range.AverageRange`).
    bits : int
        Code width.

    Raises
    ------
    CalibrationError
        If a range is not finite, or there are none.
    """
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    if low.shape != high.shape or low.ndim != 1 or not low.size:
        raise ValueError(f"Ranges have shapes {low.shape} and {high.shape}; expected (C,) both.")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise CalibrationError(
            "Calibration of a CAG quantizer was given NaN or infinite ranges; check the checkpoint and the images."
        )
    scale, zero_point = range_rule(low, high, bits)
    return CagParams(bits, tuple(scale.tolist()), tuple(zero_point.tolist()), tuple(range(low.size)))


def regroup(params: CagParams, groups: int, method: str = "pairs") -> CagParams:
    """Group channels by their present parameters, one step of the progressive grouping.

    Parameters
    ----------
    params : CagParams
        Of single channels or of more groups than asked for; scales may have been learned since.
    groups : int
        At most this many; fewer if fewer parameters differ.
    method : {"pairs", "hull"}
        "pairs", published: clusters of (scale, zero point), which take the mean scale and the rounded mean zero point.
        "hull": clusters of (low, high), which take the union of their members' ranges.
    """
    if method not in METHODS:
        raise ValueError(f"Grouping method {method!r} is unknown; expected 'pairs' or 'hull'.")
    scale, zero_point = params.per_channel()
    top = 2**params.bits - 1
    if method == "pairs":
        points = np.stack([scale, zero_point], 1)
    else:
        points = np.stack([-zero_point * scale, (top - zero_point) * scale], 1)
    labels = np.unique(kmeans(points, groups, starts=_STARTS), return_inverse=True)[1].reshape(-1)
    if method == "pairs":
        centres = group_centres(points, labels)
        scales, zeros = centres[:, 0], np.clip(np.rint(centres[:, 1]), 0, top)
    else:
        members = [points[labels == g] for g in range(labels.max() + 1)]
        ends = np.array([(m[:, 0].min(), m[:, 1].max()) for m in members])
        scales, zeros = range_rule(ends[:, 0], ends[:, 1], params.bits)
    return CagParams(params.bits, tuple(scales), tuple(zeros), tuple(labels.tolist()))


def group_centres(pairs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the ``(G, 2)`` float64 mean (scale, zero point) of each group's channels, not rounded."""
    totals = [np.bincount(labels, weights=column) for column in np.asarray(pairs, np.float64).T]
    return np.stack(totals, 1) / np.bincount(labels)[:, None]


def calibrate_cag_published(
    low: np.ndarray, high: np.ndarray, bits: int, groups: int = 4, method: str = "pairs"
) -> CagParams:
    """Group channels in all steps (8, 4, 2 and 1 times `groups`), without learning in between.

    Parameters
    ----------
    low, high : numpy.ndarray
        ``(C,)`` ranges of the channels.
    bits : int
        Code width.
    groups : int
        Final number, at most.
    method : {"pairs", "hull"}
        As for :func:`regroup`.

    Raises
    ------
    CalibrationError
        If a range is not finite.
    """
    params = per_channel_params(low, high, bits)
    for step in STEPS:
        params = regroup(params, step * groups, method)
    return params
