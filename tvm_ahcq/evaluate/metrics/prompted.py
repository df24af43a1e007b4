"""Prompts that stand for an object, and what a predictor makes of them: the one definition that every score uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tvm_ahcq.models.execution import ImagePredictor

_PIXELS_A_BATCH = 2**25
"""Pixels of the masks, of all objects together, that are asked for at a time: 32 MB a mask each."""


def by_click(predictor: ImagePredictor, clicks: np.ndarray) -> np.ndarray:
    """One click an object, of three masks the one with the best predicted IoU.

    Parameters
    ----------
    predictor : ImagePredictor
        With its image set.
    clicks : numpy.ndarray
        ``(B, 2)`` x, y in pixels of the image.

    Returns
    -------
    numpy.ndarray
        ``(B, H, W)`` bool.
    """
    masks, scores = predictor.predict_clicks(clicks)
    return masks[np.arange(len(masks)), scores.argmax(1)]


def by_single_click(predictor: ImagePredictor, clicks: np.ndarray) -> np.ndarray:
    """As :func:`by_click`, but the one mask that the model gives with ``multimask_output=False``."""
    return predictor.predict_clicks(clicks, multimask_output=False)[0][:, 0]


def by_box(predictor: ImagePredictor, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One box an object, ``multimask_output=False``.

    Parameters
    ----------
    predictor : ImagePredictor
        With its image set.
    boxes : numpy.ndarray
        ``(B, 4)`` x0, y0, x1, y1 in pixels of the image.

    Returns
    -------
    masks, scores : numpy.ndarray
        ``(B, H, W)`` bool, and ``(B,)`` float32 predicted IoU.
    """
    masks, scores = predictor.predict_boxes(boxes)
    return masks[:, 0], scores[:, 0]


def batches(count: int, size: tuple[int, int]) -> Iterator[slice]:
    """Slices of ``range(count)`` for which masks of `size` ``(H, W)`` stay within some tens of megabytes."""
    step = max(1, _PIXELS_A_BATCH // (size[0] * size[1]))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
