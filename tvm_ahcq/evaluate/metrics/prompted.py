"""Prompts that stand for an object, and what a predictor makes of them: the one definition that every score uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tvm_ahcq.errors import EvaluationError

if TYPE_CHECKING:
    from tvm_ahcq.models.sam.predictor import SamPredictor

_PIXELS_A_BATCH = 2**25
"""Pixels of the masks, of all objects together, that are asked for at a time: 32 MB a mask each."""


def by_click(predictor: SamPredictor, clicks: np.ndarray) -> np.ndarray:
    """One click an object, of three masks the one with the best predicted IoU.

    Parameters
    ----------
    predictor : SamPredictor
        With its image set.
    clicks : numpy.ndarray
        ``(B, 2)`` x, y in pixels of the image.

    Returns
    -------
    numpy.ndarray
        ``(B, H, W)`` bool.
    """
    masks, scores = _click(predictor, clicks, multimask_output=True)
    return masks[np.arange(len(masks)), scores.argmax(1)]


def by_single_click(predictor: SamPredictor, clicks: np.ndarray) -> np.ndarray:
    """As :func:`by_click`, but the one mask that the model gives with ``multimask_output=False``."""
    return _click(predictor, clicks, multimask_output=False)[0][:, 0]


def by_box(predictor: SamPredictor, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One box an object, ``multimask_output=False``.

    Parameters
    ----------
    predictor : SamPredictor
        With its image set.
    boxes : numpy.ndarray
        ``(B, 4)`` x0, y0, x1, y1 in pixels of the image.

    Returns
    -------
    masks, scores : numpy.ndarray
        ``(B, H, W)`` bool, and ``(B,)`` float32 predicted IoU.
    """
    boxes = predictor.transform.apply_boxes(boxes, _image_size(predictor))
    masks, scores, _ = predictor.predict_torch(None, None, boxes, multimask_output=False)
    return masks[:, 0], scores[:, 0]


def batches(count: int, size: tuple[int, int]) -> Iterator[slice]:
    """Slices of ``range(count)`` for which masks of `size` ``(H, W)`` stay within some tens of megabytes."""
    step = max(1, _PIXELS_A_BATCH // (size[0] * size[1]))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _click(predictor: SamPredictor, clicks: np.ndarray, multimask_output: bool) -> tuple[np.ndarray, np.ndarray]:
    points = predictor.transform.apply_coords(np.asarray(clicks)[:, None], _image_size(predictor))
    labels = np.ones((len(points), 1), np.float32)
    masks, scores, _ = predictor.predict_torch(points, labels, multimask_output=multimask_output)
    return masks, scores


def _image_size(predictor: SamPredictor) -> tuple[int, int]:
    """Height and width of the image that the predictor has."""
    if predictor.original_size is None:
        raise EvaluationError("The predictor has no image; expected one to be set, call its set_image first.")
    return predictor.original_size
