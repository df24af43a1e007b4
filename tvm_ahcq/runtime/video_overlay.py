"""A frame of a video with its objects drawn in: smooth edges, an outline, one colour an object, prompts."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFilter

from .overlay import COLOURS, overlay

_GOLDEN = 0.618034
"""Steps of hue that stay far from all before."""


@dataclass
class DrawnPrompts:
    """Prompts of one frame, in pixels.

    Attributes
    ----------
    points : list of (float, float)
        x and y.
    labels : list of int
        1 on the object, 0 off it.
    boxes : list of tuple
        x0, y0, x1, y1.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the RGB colour of the object of a number, from 0."""
    if number < len(COLOURS):
        return COLOURS[number]
    red, green, blue = colorsys.hsv_to_rgb((number * _GOLDEN) % 1, 0.65 + 0.3 * (number % 2), 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    prompts: DrawnPrompts | None = None,
    opacity: float = 0.45,
) -> np.ndarray:
    """Draw objects and prompts over a frame.

    Parameters
    ----------
    image : numpy.ndarray
        ``(H, W, 3)`` uint8 RGB.
    masks : sequence of numpy.ndarray
        ``(H, W)`` bool; an object keeps its place, and so its colour, from frame to frame.
    prompts : DrawnPrompts, optional
        Of this frame.
    opacity : float
        Of the colour inside a mask, 0..1.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 3)`` uint8.
    """
    picture = image.copy()
    thickness = max(1.0, max(image.shape[:2]) / 600)
    for number, mask in enumerate(masks):
        _draw(picture, mask, np.array(colour_of(number), np.float32), thickness, opacity)
    if prompts is None:
        return picture
    nothing = np.zeros((0, *image.shape[:2]), bool)
    coords = np.array(prompts.points, float).reshape(-1, 2)
    return overlay(picture, nothing, coords, np.array(prompts.labels), np.array(prompts.boxes, float))


def _draw(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray, thickness: float, opacity: float) -> None:
    """Blend the colour in within the bounding box of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return
    margin = int(4 * thickness) + 1
    window = tuple(slice(max(0, int(each[0]) - margin), int(each[-1]) + 1 + margin) for each in (rows, columns))
    hard = Image.fromarray(mask[window].astype(np.uint8) * 255)
    soft, wide = (
        np.asarray(hard.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255 for radius in (0.7, thickness)
    )
    line = np.minimum(1, 5 * wide * (1 - wide))[..., None]  # greatest on the edge, where half of the window is covered
    inside = np.float32(opacity) * soft[..., None]
    part = picture[window].astype(np.float32)
    part += (colour - part) * inside
    part += (colour - part) * line
    picture[window] = np.rint(part).astype(np.uint8)
