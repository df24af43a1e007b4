"""Prompts: checked, and brought into the form that the decoder takes (tokens with labels, one batch axis for masks)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ahcq.errors import PromptError

PADDING, BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""Labels of a token."""


POINT_LABELS = (PADDING, BACKGROUND, FOREGROUND)
"""Labels of points; box corners go in as a box."""


def check_points(
    coords: Any, labels: Any, batched: bool = False, known: tuple[int, ...] = POINT_LABELS
) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(N, 2)`` and labels ``(N,)``, or with a batch axis B in front, as float64 and float32.

    Labels other than the `known` ones are refused.

    Raises
    ------
    PromptError
        A shape does not fit, a label is unknown, or a coordinate is not finite.
    """
    expected = "(B, N, 2)" if batched else "(N, 2)"
    if coords is None:
        raise PromptError(f"point_labels were given without point_coords; pass point_coords of shape {expected}")
    if labels is None:
        raise PromptError("point_labels must be supplied if point_coords is supplied: 1 foreground, 0 background")
    coords, labels = _numbers("point_coords", coords, np.float64), _numbers("point_labels", labels, np.float32)
    if coords.ndim != 2 + batched or coords.shape[-1] != 2:
        raise PromptError(f"point_coords has shape {coords.shape}, expected {expected}: x and y in pixels")
    if labels.shape != coords.shape[:-1]:
        raise PromptError(f"point_labels has shape {labels.shape}, expected {coords.shape[:-1]}: one for each point")
    unknown = labels[~np.isin(labels, known)]
    if unknown.size:
        hint = "; a box goes in as box=, not as points" if np.isin(unknown, (TOP_LEFT, BOTTOM_RIGHT)).any() else ""
        raise PromptError(
            f"point label {unknown[0]:g} is not known; expected 1 foreground, 0 background or -1 ignored{hint}"
        )
    return coords, labels


def check_box(box: Any) -> np.ndarray:
    """One box XYXY as ``(4,)`` float64.

    Raises
    ------
    PromptError
        It is not one box of four finite numbers, or its corners are in the wrong order.
    """
    box = _numbers("box", box, np.float64)
    if box.shape not in ((4,), (1, 4)):
        many = (
            "; for several boxes at once use predict_torch(None, None, predictor.transform.apply_boxes(boxes, "
            "predictor.original_size))"
            if box.ndim == 2 and box.shape[1] == 4
            else ""
        )
        raise PromptError(f"box has shape {box.shape}, expected (4,): x0, y0, x1, y1 in pixels{many}")
    box = box.reshape(4)
    if box[2] < box[0] or box[3] < box[1]:
        raise PromptError(
            f"box {_pixels(box)} has its corners in the wrong order; expected x0 <= x1 and y0 <= y1 "
            "(XYXY, not x, y, width, height)"
        )
    return box


def check_boxes(boxes: Any) -> np.ndarray:
    """Boxes ``(B, 4)`` XYXY as float64.

    Raises
    ------
    PromptError
        Another shape, or a number that is not finite.
    """
    boxes = _numbers("boxes", boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise PromptError(f"boxes has shape {boxes.shape}, expected (B, 4): x0, y0, x1, y1, one box for each mask")
    return boxes


def check_mask(mask: Any, side: int, batched: bool = False) -> np.ndarray:
    """Mask logits ``(1, side, side)``, or ``(B, 1, side, side)``, as float32.

    Raises
    ------
    PromptError
        Another shape, or a number that is not finite.
    """
    mask = _numbers("mask_input", mask, np.float32)
    if mask.ndim != 3 + batched or mask.shape[-3:] != (1, side, side):
        expected = f"(B, 1, {side}, {side})" if batched else f"(1, {side}, {side})"
        raise PromptError(
            f"mask_input has shape {mask.shape}, expected {expected}: low-resolution logits as predict "
            "returns them, logits[i:i + 1] for mask i"
        )
    return mask


def check_inside(what: str, coords: np.ndarray, size: tuple[int, int]) -> None:
    """Refuse coordinates ``(N, 2)`` beyond the edges of an image of `size` ``(H, W)``.

    Raises
    ------
    PromptError
        Names the first such prompt.
    """
    height, width = size
    outside = ((coords < 0) | (coords > (width, height))).any(axis=1)
    if outside.any():
        number = int(np.argmax(outside))
        raise PromptError(
            f"{what} {number} at {_pixels(coords[number])} lies outside the image of {width} x {height} "
            f"pixels (width x height); coordinates are (x, y) in pixels of the original image"
        )


def tokens(
    points: tuple[np.ndarray, np.ndarray] | None, boxes: np.ndarray | None, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the decoder: the points, then two corners of a box, or a padding token where there is no box.

    Without points and boxes there are no tokens at all (upstream, ``PromptEncoder.forward``).

    Returns
    -------
    coords : numpy.ndarray
        ``(batch, N, 2)`` float32.
    labels : numpy.ndarray
        ``(batch, N)`` float32.
    """
    coords, labels = [np.zeros((batch, 0, 2))], [np.zeros((batch, 0))]
    if points is not None:
        coords.append(points[0])
        labels.append(points[1])
        if boxes is None:
            coords.append(np.zeros((batch, 1, 2)))
            labels.append(np.full((batch, 1), PADDING))
    if boxes is not None:
        coords.append(boxes.reshape(batch, 2, 2))
        labels.append(np.tile([TOP_LEFT, BOTTOM_RIGHT], (batch, 1)))
    return (np.concatenate(coords, axis=1).astype(np.float32), np.concatenate(labels, axis=1).astype(np.float32))


def _numbers(name: str, values: Any, dtype: type) -> np.ndarray:
    """The values as a finite array; from anything that numpy can convert."""
    try:
        array: np.ndarray = np.asarray(values).astype(dtype)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name} cannot be made an array of numbers: {error}") from error
    if not np.isfinite(array).all():
        raise PromptError(f"{name} contains NaN or infinity; expected finite numbers")
    return array


def _pixels(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
