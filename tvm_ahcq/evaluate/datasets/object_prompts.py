"""Prompts that stand for an annotated object: its bounding box, and its pixel furthest from the border."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 around a boolean mask ``(H, W)`` that is not empty; x1 and y1 lie one pixel beyond it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def deepest_pixel(mask: np.ndarray) -> tuple[int, int]:
    """Return x, y of the pixel furthest from the border of a boolean mask ``(H, W)`` that is not empty.

    This is SAM's click in its evaluation of single points ("Segment Anything", section 7.1). The edge of the picture
    counts as border, so an object that it cuts is clicked inside too.
    """
    x0, y0, x1, y1 = tight_box(mask)
    # beyond the box there is only background, of which one pixel is enough
    depth = distance_transform_edt(np.pad(mask[y0:y1, x0:x1], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return x0 + int(x), y0 + int(y)
