"""A photo with exact enough masks that every installation has: ``skimage.data.coins``."""

from __future__ import annotations

import numpy as np


def coins() -> tuple[np.ndarray, np.ndarray]:
    """Return ``skimage.data.coins`` with masks of its coins by Otsu's threshold, holes filled.

    Left out are regions that the threshold does not separate: those that touch the dark upper margin, and those not of
    a coin's size.

    Returns
    -------
    image : numpy.ndarray
        ``(H, W, 3)`` uint8, RGB.
    masks : numpy.ndarray
        ``(22, H, W)`` bool.
    """
    from scipy import ndimage
    from skimage import data, filters, measure, morphology

    grey = data.coins()
    solid = ndimage.binary_fill_holes(morphology.closing(grey > filters.threshold_otsu(grey), np.ones((3, 3))))
    labels = measure.label(solid)
    regions = [r for r in measure.regionprops(labels) if 800 < r.area < 3500 and r.bbox[0] > 2]
    return np.repeat(grey[..., None], 3, axis=2), np.stack([labels == r.label for r in regions])


def centre(mask: np.ndarray) -> tuple[float, float]:
    """Return x, y of the mean pixel of a boolean mask ``(H, W)`` that is not empty."""
    y, x = np.argwhere(mask).mean(0)
    return float(x), float(y)
