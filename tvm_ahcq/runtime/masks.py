"""Low-resolution mask logits to masks of the original image; equal to upstream's two bilinear resizes within rounding.

Upstream enlarges to the model's square, crops the padding off, and resizes to the original image. All three steps are
linear and act on rows and columns separately, so here each axis has one matrix for all of them. Its rows have at most
four neighbouring entries; multiplying block by block keeps to these, and no picture of the model's size is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_BLOCK = 128
"""Output pixels that are computed by one small matrix product."""


@dataclass(frozen=True, eq=False)
class _Axis:
    """A resize of one axis: for each block of outputs, the inputs that it reads and their weights."""

    size: int
    blocks: tuple[tuple[slice, slice, np.ndarray], ...]


def resize_masks(
    low: np.ndarray, image_size: int, input_size: tuple[int, int], original_size: tuple[int, int]
) -> np.ndarray:
    """Mask logits at the size of the original image.

    Parameters
    ----------
    low : numpy.ndarray
        ``(..., h, w)`` float32 logits over the model's square input.
    image_size : int
        Side of that square in pixels.
    input_size, original_size : tuple of int
        ``(H, W)`` of the resized image within it, and of the original image.

    Returns
    -------
    numpy.ndarray
        ``(..., H, W)`` float32.
    """
    rows, columns = _axes(low.shape[-2:], image_size, input_size, original_size)
    out = np.empty((*low.shape[:-2], *original_size), np.float32)
    for mask, target in zip(_flat(low), _flat(out), strict=True):
        wide = _along_columns(mask, columns)
        for block in rows.blocks:
            _rows_of(block, wide, target[block[0]])
    return out


def threshold_masks(
    low: np.ndarray, image_size: int, input_size: tuple[int, int], original_size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Whether the logits of :func:`resize_masks` exceed a threshold: ``(..., H, W)`` bool, in little more memory."""
    rows, columns = _axes(low.shape[-2:], image_size, input_size, original_size)
    out = np.empty((*low.shape[:-2], *original_size), bool)
    strip = np.empty((min(_BLOCK, rows.size), columns.size), np.float32)
    for mask, target in zip(_flat(low), _flat(out), strict=True):
        wide = _along_columns(mask, columns)
        for block in rows.blocks:
            part = strip[: block[0].stop - block[0].start]
            _rows_of(block, wide, part)
            np.greater(part, threshold, out=target[block[0]])
    return out


def _flat(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(-1, *masks.shape[-2:])


def _along_columns(mask: np.ndarray, columns: _Axis) -> np.ndarray:
    """Resize the width: ``(h, w)`` to ``(h, W)``."""
    wide = np.empty((mask.shape[0], columns.size), np.float32)
    for outputs, inputs, weights in columns.blocks:
        np.matmul(mask[:, inputs], weights.T, out=wide[:, outputs])
    return wide


def _rows_of(block: tuple[slice, slice, np.ndarray], wide: np.ndarray, out: np.ndarray) -> None:
    """Resize the height of one block of rows."""
    _, inputs, weights = block
    np.matmul(weights, wide[inputs], out=out)


@lru_cache(maxsize=8)
def _axes(
    low_size: tuple[int, int], image_size: int, input_size: tuple[int, int], original_size: tuple[int, int]
) -> tuple[_Axis, _Axis]:
    rows, columns = (
        _axis(low, image_size, crop, full) for low, crop, full in zip(low_size, input_size, original_size, strict=True)
    )
    return rows, columns


def _axis(low: int, image_size: int, crop: int, full: int) -> _Axis:
    """Enlarge `low` to `image_size`, keep the first `crop`, resize to `full`."""
    first, second, share = linear_taps(low, image_size)
    first, second, share = first[:crop], second[:crop], share[:crop]
    left, right, weight = linear_taps(crop, full)
    entries = [
        (first[left], (1 - share[left]) * (1 - weight)),
        (second[left], share[left] * (1 - weight)),
        (first[right], (1 - share[right]) * weight),
        (second[right], share[right] * weight),
    ]
    blocks = []
    for start in range(0, full, _BLOCK):
        outputs = slice(start, min(start + _BLOCK, full))
        lowest = min(int(index[outputs].min()) for index, _ in entries)
        highest = max(int(index[outputs].max()) for index, _ in entries)
        weights = np.zeros((outputs.stop - start, highest - lowest + 1), np.float32)
        for index, part in entries:
            np.add.at(weights, (np.arange(len(weights)), index[outputs] - lowest), part[outputs])
        blocks.append((outputs, slice(lowest, highest + 1), weights))
    return _Axis(full, tuple(blocks))


def linear_taps(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear resize of one axis as torch computes it for ``align_corners=False``, coordinates in float32.

    Returns
    -------
    low, high : numpy.ndarray
        ``(target,)`` int64: the two inputs of each output.
    share : numpy.ndarray
        ``(target,)`` float32: weight of `high`; `low` has the rest.
    """
    scale = np.float32(size) / np.float32(target)
    # torch's compiler fuses the multiply-add: one rounding
    centre = (np.float64(scale) * (np.arange(target) + 0.5) - 0.5).astype(np.float32)
    centre = np.maximum(centre, np.float32(0))
    low = np.minimum(centre.astype(np.int64), size - 1)
    share = np.clip(centre - low.astype(np.float32), np.float32(0), np.float32(1))
    return low, np.minimum(low + 1, size - 1), share.astype(np.float32)
