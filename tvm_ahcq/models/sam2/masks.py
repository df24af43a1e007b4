"""Masks of SAM 2: the choice by stability, small holes and sprinkles, and the size of the image."""

from __future__ import annotations

import numpy as np
from skimage.measure import label

from tvm_ahcq.models.sam.masks import resize_masks, threshold_masks

from .spec import Sam2Spec

FILL = 10.0
"""Distance from the threshold that filled holes and removed sprinkles get (upstream, ``postprocess_masks``)."""


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
    if binarize:
        masks = (logits > 0).astype(np.float32)
    else:
        with np.errstate(over="ignore"):
            masks = 1 / (1 + np.exp(-logits))
    return masks * np.float32(model.memory_scale) + np.float32(model.memory_bias)


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
