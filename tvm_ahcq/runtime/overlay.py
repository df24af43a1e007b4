"""A picture of a prediction: masks in colour over the image, their outlines, and the prompts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tvm_ahcq.errors import ImageError
from tvm_ahcq.image_files import check_image

COLOURS = ((30, 144, 255), (255, 159, 28), (46, 196, 106), (214, 64, 159), (250, 210, 40), (120, 94, 240))
"""RGB of the masks, in turn."""

_POINT_COLOURS = {1: (40, 200, 80), 0: (230, 50, 50)}


def overlay(
    image: np.ndarray,
    masks: np.ndarray,
    point_coords: np.ndarray | None = None,
    point_labels: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    opacity: float = 0.45,
) -> np.ndarray:
    """Draw masks and prompts over an image.

    Parameters
    ----------
    image : numpy.ndarray
        ``(H, W, 3)`` uint8 RGB.
    masks : numpy.ndarray
        ``(C, H, W)`` or ``(H, W)`` bool.
    point_coords, point_labels : numpy.ndarray, optional
        ``(N, 2)`` in pixels and ``(N,)``: green foreground, red background.
    boxes : numpy.ndarray, optional
        ``(B, 4)`` or ``(4,)``, XYXY in pixels.
    opacity : float
        Of the colour inside a mask, 0..1.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 3)`` uint8.

    Raises
    ------
    ImageError
        The masks do not have the size of the image.
    """
    picture = check_image(image).copy()
    masks = np.asarray(masks, bool)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or masks.shape[1:] != picture.shape[:2]:
        raise ImageError(
            f"masks have shape {masks.shape}, expected (C, {picture.shape[0]}, {picture.shape[1]}), "
            "the size of the image"
        )
    thickness = max(1, round(max(picture.shape[:2]) / 400))
    for number, mask in enumerate(masks):
        colour = np.array(COLOURS[number % len(COLOURS)], np.float32)
        picture[mask] = np.rint(picture[mask] * (1 - opacity) + colour * opacity).astype(np.uint8)
        picture[_outline(mask, thickness)] = colour.astype(np.uint8)
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for box in np.reshape([] if boxes is None else boxes, (-1, 4)):
        draw.rectangle([float(edge) for edge in box], outline=(255, 255, 255), width=thickness)
    if point_coords is not None:
        _draw_points(
            draw, point_coords, np.ones(len(point_coords)) if point_labels is None else point_labels, 3 * thickness
        )
    return np.array(canvas)


def save_overlay(
    path: str | os.PathLike[str],
    image: np.ndarray,
    masks: np.ndarray,
    point_coords: np.ndarray | None = None,
    point_labels: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
) -> None:
    """Write :func:`overlay` to a file, PNG unless its name says otherwise.

    Raises
    ------
    ImageError
        The file cannot be written.
    """
    picture = Image.fromarray(overlay(image, masks, point_coords, point_labels, boxes))
    try:
        picture.save(path, format=None if Path(path).suffix else "PNG")
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: the picture cannot be written: {error}") from error


def _outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """Pixels of a mask within `thickness` steps of its border; the edge of the image is no border."""
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _draw_points(draw: ImageDraw.ImageDraw, coords: np.ndarray, labels: np.ndarray, radius: int) -> None:
    for (x, y), label in zip(np.asarray(coords, float), labels, strict=True):
        if int(label) in _POINT_COLOURS:
            draw.ellipse(
                [x - radius, y - radius, x + radius, y + radius],
                fill=_POINT_COLOURS[int(label)],
                outline=(255, 255, 255),
                width=max(1, radius // 3),
            )
