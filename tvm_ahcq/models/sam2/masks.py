"""Masks of SAM 2: the choice by stability, small holes and sprinkles, overlaps, and the size of the image."""

from __future__ import annotations

import numpy as np
from skimage.measure import label

from tvm_ahcq.models.sam.masks import resize_masks, threshold_masks

from .spec import Sam2Spec

FILL = 10.0
"""Distance from the threshold that filled holes and removed sprinkles get (upstream, ``postprocess_masks``)."""

NO_OBJECT = -1024.0
"""Logit of every pixel where the object is not there (upstream, ``NO_OBJ_SCORE``)."""

_FILLED = 0.1
"""Logit of filled holes in videos (upstream, ``fill_holes_in_mask_scores``)."""

_OVERLAPPED = -10.0
"""Greatest logit of a pixel that belongs to another object."""


def choose_stable(model: Sam2Spec, masks: np.ndarray, iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose one mask of four: the first if it is stable, else the best of the others.

    Upstream's ``MaskDecoder._dynamic_multimask_via_stability``.

    Parameters
    ----------
    model : Sam2Spec
        With the limits of stability.
    masks, iou : numpy.ndarray
        ``(B, 4, h, w)`` logits and ``(B, 4)`` scores.

    Returns
    -------
    masks, iou : numpy.ndarray
        ``(B, 1, h, w)`` and ``(B, 1)``.
    """
    delta, first = model.stability_delta, masks[:, 0].reshape(len(masks), -1)
    inner, outer = (first > delta).sum(1), (first > -delta).sum(1)
    stability = np.where(outer > 0, inner / np.maximum(outer, 1), 1.0)
    chosen = np.where(stability >= model.stability_threshold, 0, 1 + iou[:, 1:].argmax(1))
    rows = np.arange(len(masks))
    return masks[rows, chosen][:, None], iou[rows, chosen][:, None]


def clean(masks: np.ndarray, threshold: float, hole_area: float, sprinkle_area: float) -> np.ndarray:
    """Fill holes and remove sprinkles of at most these areas in pixels of ``(..., h, w)`` logits; 8-connected."""
    result = masks.copy()
    for source, target in zip(_flat(masks), _flat(result), strict=True):
        if hole_area > 0:
            target[_small(source <= threshold, hole_area)] = threshold + FILL
        if sprinkle_area > 0:
            target[_small(source > threshold, sprinkle_area)] = threshold - FILL
    return result


def memory_input(model: Sam2Spec, logits: np.ndarray, binarize: bool = False) -> np.ndarray:
    """Return masks as the memory encoder reads them.

    Parameters
    ----------
    model : Sam2Spec
        With scale and bias.
    logits : numpy.ndarray
        ``(B, 1, S, S)`` float32.
    binarize : bool
        True for 0 and 1 in place of probabilities.

    Returns
    -------
    numpy.ndarray
        ``(B, 1, S, S)`` float32.
    """
    scale, bias = np.float32(model.memory_scale), np.float32(model.memory_bias)
    if binarize:
        return np.where(logits > 0, scale + bias, bias)
    scaled = np.tanh(logits * np.float32(0.5))  # sigmoid(x) is (1 + tanh(x / 2)) / 2
    scaled *= scale / 2
    scaled += scale / 2 + bias
    return scaled


def fill_holes(masks: np.ndarray, area: float) -> np.ndarray:
    """Return ``(..., h, w)`` logits in which holes of at most this area in pixels are 0.1; 8-connected."""
    result = masks.copy()
    for source, target in zip(_flat(masks), _flat(result), strict=True):
        target[_small(source <= 0, area)] = _FILLED
    return result


def separate(masks: np.ndarray) -> np.ndarray:
    """Return logits ``(objects, 1, H, W)`` where each pixel belongs to the object with the greatest logit alone.

    The others get -10 or less there (upstream, ``_apply_non_overlapping_constraints``).
    """
    if len(masks) == 1:
        return masks
    others = masks.argmax(0)[None] != np.arange(len(masks)).reshape(-1, 1, 1, 1)
    return np.minimum(masks, np.float32(_OVERLAPPED), out=masks.copy(), where=others)


def enlarge(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize ``(..., h, w)`` float32 logits to ``(..., H, W)``, bilinear."""
    side = masks.shape[-1]
    return resize_masks(masks, side, (side, side), size)


def enlarge_above(masks: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """Return :func:`enlarge` above a threshold: ``(..., H, W)`` bool, in little more memory."""
    side = masks.shape[-1]
    return threshold_masks(masks, side, (side, side), size, threshold)


def _flat(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(-1, *masks.shape[-2:])


def _small(region: np.ndarray, area: float) -> np.ndarray:
    """Return the pixels of the components of a region with at most this area."""
    components = label(region, connectivity=2)
    sizes = np.bincount(components.ravel())
    small = sizes <= area
    small[0] = False
    return small[components]
