"""Procedurally generated video clips: the data that a model with memory is trained and evaluated on.

A clip shows textured shapes that move, turn, deform, pass in front of one another, and sometimes leave the picture and
return, before a background that may pan; and on every frame the exact mask of each shape. A clip depends on its seed
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .scenes import MIN_VISIBLE_AREA, SHAPES, Canvas, expose, outline_radius, texture

LENGTH = 16
"""Frames of a clip."""

_MARGIN = 32
"""Pixels of background beyond each side of the picture, for panning."""

_ANGLES = 720
"""Angles at which an outline is tabulated."""


@dataclass(frozen=True)
class Clip:
    """A clip with its annotation.

    Attributes
    ----------
    frames : numpy.ndarray
        ``(length, size, size, 3)`` uint8, RGB.
    labels : numpy.ndarray
        ``(length, size, size)`` uint8: 0 background, ``i`` the pixels on which object ``i`` (from 1) lies on top.
    """

    frames: np.ndarray
    labels: np.ndarray

    def objects(self, frame: int = 0) -> list[int]:
        """Numbers of the objects of which at least ``MIN_VISIBLE_AREA`` pixels show on a frame, ascending."""
        areas = np.bincount(self.labels[frame].ravel())
        return [int(i) for i in np.flatnonzero(areas >= MIN_VISIBLE_AREA) if i > 0]

    def masks(self, index: int) -> np.ndarray:
        """Boolean ``(length, size, size)`` masks of what shows of object `index`; empty where it is hidden or away."""
        return self.labels == index


class _Path:
    """Where the centre of a shape is over time, as y and x in pixels."""

    def __init__(self, rng: np.random.Generator, size: int, length: int, radius: float):
        self.size = size
        self.start = rng.uniform(0.08, 0.92, 2) * size
        angle = rng.uniform(0, 2 * np.pi)
        speed = size * (rng.uniform(0, 0.02) if rng.random() < 0.75 else rng.uniform(0.02, 0.05))
        self.velocity = speed * np.array([np.sin(angle), np.cos(angle)])
        self.sway, self.pace, self.phase = (rng.uniform(low, high, 2) for low, high in ((0, 5), (0.1, 0.5), (0, 6.28)))
        self.away = np.zeros(2)
        self.begin, self.duration = rng.uniform(0, 0.4) * length, rng.uniform(0.45, 0.7) * length
        if rng.random() < 0.25:  # beyond the nearest side of the picture and back
            axis = int(np.abs(self.start - size / 2).argmax())
            far = self.start[axis] > size / 2
            self.away[axis] = (size - self.start[axis] if far else -self.start[axis]) + (2 * far - 1) * 1.3 * radius

    def at(self, time: float) -> np.ndarray:
        """Centre at a time in frames; it turns round a little beyond the sides."""
        centre = self.start + self.velocity * time + self.sway * np.sin(self.pace * time + self.phase)
        low, span = -0.25 * self.size, 1.5 * self.size
        centre = low + span - np.abs((centre - low) % (2 * span) - span)
        return centre + self.away * np.sin(np.pi * np.clip((time - self.begin) / self.duration, 0, 1)) ** 2


class _MovingShape:
    """A shape that moves along a path, turns, deforms, and carries its texture along."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas, size: int, length: int):
        self.size = size
        self.radius = size * np.exp(rng.uniform(np.log(0.07), np.log(0.26)))
        self.path = _Path(rng, size, length, self.radius)
        self.turn, self.spin = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.08)
        self.angles = np.arange(_ANGLES, dtype=np.float32) * (2 * np.pi / _ANGLES)
        self.outline = outline_radius(rng, self.angles, str(rng.choice(SHAPES)))
        self.orders = np.arange(2, 5)[:, None]
        self.waves = rng.uniform(0, 0.12, (3, 1)) * (rng.random() < 0.7)
        self.phases, self.drifts = rng.uniform(0, 2 * np.pi, (3, 1)), rng.normal(0, 0.25, (3, 1))
        self.breath, self.growth = rng.uniform(0, 0.12), rng.normal(0, 0.01)
        self.colour = canvas.contrasting(canvas.image.mean((0, 1)), 0.16)
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        self.texture = rng.uniform(0.02, 0.18) * texture(rng, size, y, x)
        self.light, self.shade, self.sphere = rng.uniform(0, 6.28), rng.uniform(0, 0.2), rng.uniform(0, 0.25)

    def paint(self, image: np.ndarray, labels: np.ndarray, number: int, time: float) -> None:
        """Paint the shape as it is at a time in frames, and write its number where it covers a pixel."""
        centre = self.path.at(time)
        growth = 1 + self.breath * np.sin(0.5 * time) + self.growth * time
        waves = self.waves * np.cos(self.orders * self.angles + self.phases + self.drifts * time)
        outline = self.radius * growth * np.maximum(self.outline + waves.sum(0), 0.2)
        reach = outline.max() + 2
        (y0, x0), (y1, x1) = (np.clip(centre + sign * reach, 0, self.size).astype(int) for sign in (-1, 1))
        if y1 <= y0 or x1 <= x0:
            return
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        y, x = y - np.float32(centre[0]), x - np.float32(centre[1])
        turn = self.turn + self.spin * time
        angle = (np.arctan2(y, x) - np.float32(turn)) * np.float32(_ANGLES / (2 * np.pi))
        rho, edge = np.hypot(y, x), outline[angle.astype(int) % _ANGLES].astype(np.float32)
        alpha = np.clip(edge - rho + 0.5, 0, 1)
        value = self._texture_at(y / growth, x / growth, turn)
        value = value + self.shade * (np.cos(self.light) * x + np.sin(self.light) * y) / self.radius
        value = value + self.sphere * (0.5 - np.minimum(rho / edge, 1) ** 2)
        patch = image[y0:y1, x0:x1]
        patch += alpha[..., None] * (self.colour + value[..., None] - patch)
        labels[y0:y1, x0:x1][alpha > 0.5] = number

    def _texture_at(self, y: np.ndarray, x: np.ndarray, turn: float) -> np.ndarray:
        """The texture at distances from the centre, turned with the shape."""
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        v, u = cos * y - sin * x, sin * y + cos * x
        half = self.size // 2
        return self.texture[(v.astype(int) + half) % self.size, (u.astype(int) + half) % self.size]


def generate(seed: int, length: int = LENGTH, size: int = 256) -> Clip:
    """Make the clip with number `seed`.

    Parameters
    ----------
    seed : int
        Any non-negative integer; equal seeds give equal clips.
    length : int
        Number of frames. A longer clip is another one, not the same one continued.
    size : int
        Side of the square frames in pixels.

    Returns
    -------
    Clip
        Frames and annotation, with at least one object on the first frame.
    """
    rng = np.random.default_rng([0xC11B, seed])
    while True:
        clip = _film(rng, length, size)
        if clip.objects():
            return clip


def _film(rng: np.random.Generator, length: int, size: int) -> Clip:
    canvas = Canvas(rng, size + 2 * _MARGIN)
    shapes = [_MovingShape(rng, canvas, size, length) for _ in range(int(rng.integers(3, 7)))]
    pan = rng.normal(0, 1.5, 2) * (rng.random() < 0.6)
    camera = int(rng.integers(2**32))
    frames = np.empty((length, size, size, 3), np.uint8)
    labels = np.zeros((length, size, size), np.uint8)
    for time in range(length):
        y, x = np.clip(_MARGIN + pan * time, 0, 2 * _MARGIN).astype(int)
        image = canvas.image[y : y + size, x : x + size].astype(np.float32)
        for number, shape in enumerate(shapes, 1):
            shape.paint(image, labels[time], number, time)
        frames[time] = expose(np.random.default_rng(camera), rng, image)
    return Clip(frames, labels)


def clips(first: int, count: int, length: int = LENGTH, size: int = 256) -> Iterator[Clip]:
    """Yield the clips with seeds ``first .. first + count - 1``."""
    for seed in range(first, first + count):
        yield generate(seed, length, size)
