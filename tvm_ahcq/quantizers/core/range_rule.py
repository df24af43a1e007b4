"""Scale and zero point of a range of values; see docs/quantizers.md#uniform."""

from __future__ import annotations

import numpy as np

MIN_SCALE = 1e-8
"""Floor of the range rule, so that an all-zero tensor has a scale."""


def range_rule(low: np.ndarray | float, high: np.ndarray | float, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales and zero points of ranges, each first extended to contain 0.

    Parameters
    ----------
    low, high : numpy.ndarray or float
        Least and greatest values, any common shape.
    bits : int
        Code width.

    Returns
    -------
    scale : numpy.ndarray
        float32, at least ``MIN_SCALE``.
    zero_point : numpy.ndarray
        int32.
    """
    low = np.minimum(np.asarray(low, np.float32), np.float32(0))
    high = np.maximum(np.asarray(high, np.float32), np.float32(0))
    top = np.float32(2**bits - 1)
    scale = np.maximum((high - low) / top, np.float32(MIN_SCALE))
    return scale, np.clip(-np.rint(low / scale), 0, top).astype(np.int32)
