"""Low-resolution mask logits to masks of the original image; equal to upstream's two bilinear resizes within rounding.

Upstream enlarges to the model's square, crops the padding off, and resizes to the original image. All three steps are
linear and act on rows and columns separately, so along each axis an output is a sum of at most four weighted inputs,
and no picture of the model's size is ever made. The sums are not left to a BLAS: its threads go on spinning after a
product, and would take the cores from the decoder's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_BLOCK = 32
"""Output rows that are computed at a time: they stay in the cache."""


@dataclass(frozen=True, eq=False)
class _Axis:
    """A resize of one axis: ``output[i] = sum over t of weight[t, i] * input[index[t, i]]``.

    Attributes
    ----------
    index, weight : numpy.ndarray
        ``(taps, size)`` intp and float32; at most four taps.
    """

    index: np.ndarray
    weight: np.ndarray

    @property
    def size(self) -> int:
        """Number of outputs."""
        return self.index.shape[1]


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
        for start in range(0, rows.size, _BLOCK):
            _rows_of(wide, rows, slice(start, start + _BLOCK), target[start : start + _BLOCK])
    return out


def threshold_masks(
    low: np.ndarray, image_size: int, input_size: tuple[int, int], original_size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Return :func:`resize_masks` above a threshold: ``(..., H, W)`` bool, in little more memory."""
    rows, columns = _axes(low.shape[-2:], image_size, input_size, original_size)
    out = np.empty((*low.shape[:-2], *original_size), bool)
    strip = np.empty((min(_BLOCK, rows.size), columns.size), np.float32)
    for mask, target in zip(_flat(low), _flat(out), strict=True):
        wide = _along_columns(mask, columns)
        for start in range(0, rows.size, _BLOCK):
            found = target[start : start + _BLOCK]
            _rows_of(wide, rows, slice(start, start + _BLOCK), strip[: len(found)])
            np.greater(strip[: len(found)], threshold, out=found)
    return out


def _flat(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(-1, *masks.shape[-2:])


def _along_columns(mask: np.ndarray, columns: _Axis) -> np.ndarray:
    """Resize the width: ``(h, w)`` to ``(h, W)``."""
    wide = mask[:, columns.index[0]] * columns.weight[0]
    for index, weight in zip(columns.index[1:], columns.weight[1:], strict=True):
        wide += mask[:, index] * weight
    return wide


def _rows_of(wide: np.ndarray, rows: _Axis, chosen: slice, out: np.ndarray) -> None:
    """Resize the height: the output rows `chosen`."""
    index, weight = rows.index[:, chosen], rows.weight[:, chosen, None]
    np.multiply(wide[index[0]], weight[0], out=out)
    for tap in range(1, len(index)):
        out += wide[index[tap]] * weight[tap]


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
    index, weights = zip(*entries, strict=True)
    stacked = np.stack(weights).astype(np.float32)
    used = stacked.any(axis=1)  # one of the two resizes may leave the axis as it is
    return _Axis(np.stack(index)[used], stacked[used])


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
