"""Procedurally generated segmentation scenes: the data that ``vit_t`` is trained, calibrated and evaluated on.

A scene is an RGB picture with textured, shaded, overlapping shapes on a textured background and the exact mask of
every object, so that a click has one right answer. A scene depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MIN_VISIBLE_AREA = 150
"""Objects with fewer visible pixels are painted over by nothing and prompted by nobody: they are left out."""

MIN_VISIBLE_FRACTION = 0.5
"""Objects of which less than this fraction shows are left out of the annotation (but stay in the picture)."""


@dataclass(frozen=True)
class Scene:
    """One picture with its annotation.

    Attributes
    ----------
    image : numpy.ndarray
        ``(size, size, 3)`` uint8, RGB.
    labels : numpy.ndarray
        ``(size, size)`` uint8: 0 background, ``i`` the pixels on which object ``i`` (from 1) lies on top.
    parents : numpy.ndarray
        ``(n + 1,)`` uint8: ``parents[i]`` is the object of which object ``i`` is a part, 0 for a whole object.
    """

    image: np.ndarray
    labels: np.ndarray
    parents: np.ndarray

    def objects(self) -> list[int]:
        """Numbers of the annotated objects (wholes and parts), ascending."""
        own = np.bincount(self.labels.ravel(), minlength=len(self.parents))
        area = own + np.bincount(self.parents, weights=own, minlength=len(self.parents))
        return [i for i in range(1, len(self.parents)) if area[i] >= MIN_VISIBLE_AREA]

    def mask(self, index: int) -> np.ndarray:
        """Boolean ``(size, size)`` mask of object `index`, its parts included."""
        mask = self.labels == index
        for part in np.flatnonzero(self.parents == index):
            mask |= self.labels == part
        return mask


def noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth value noise in about [-1, 1]: a random grid of `cells` x `cells`, bilinearly enlarged."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    t = np.linspace(0, cells, size, endpoint=False, dtype=np.float32)
    i = t.astype(np.intp)
    f = t - i
    rows = grid[i] * (1 - f)[:, None] + grid[i + 1] * f[:, None]
    return rows[:, i] * (1 - f) + rows[:, i + 1] * f


def texture(rng: np.random.Generator, size: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One of noise, stripes, checks or dots in [-1, 1] on the pixel grid (`y`, `x`)."""
    kind = rng.choice(4, p=[0.55, 0.2, 0.15, 0.1])
    if kind == 0:
        cells = int(rng.integers(3, max(4, size // 3)))
        return noise(rng, size, cells)[: y.shape[0], : x.shape[1]]
    angle = rng.uniform(0, np.pi)
    period = rng.uniform(5, 18)
    u = (np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / period) + rng.uniform(0, 6.28)
    if kind == 1:
        return np.sin(u)
    v = (-np.sin(angle) * x + np.cos(angle) * y) * (2 * np.pi / period)
    product = np.sin(u) * np.sin(v)
    return np.sign(product).astype(np.float32) if kind == 2 else np.where(product > 0.4, 1.0, -0.4)


def outline_radius(rng: np.random.Generator, theta: np.ndarray, kind: str) -> np.ndarray:
    """Outline of a star-shaped figure of mean size 1 as radius over angle."""
    if kind == "disc":
        return np.ones_like(theta)
    if kind == "superellipse":
        a, n = rng.uniform(0.55, 1.0), rng.uniform(1.6, 8.0)
        c, s = np.abs(np.cos(theta)), np.abs(np.sin(theta))
        return (c**n + (s / a) ** n + 1e-9) ** (-1 / n)
    if kind == "polygon":
        n = int(rng.integers(3, 7))
        angles = (np.arange(n) + rng.uniform(-0.25, 0.25, n)) * (2 * np.pi / n)
        support = rng.uniform(0.6, 0.9, n)
        return 1.0 / np.max([np.cos(theta - a) / s for a, s in zip(angles, support, strict=True)], axis=0)
    if kind == "star":
        n, depth = int(rng.integers(4, 8)), rng.uniform(0.25, 0.5)
        wave = np.abs(((theta * n / (2 * np.pi)) % 1.0) * 2 - 1)
        return 1.0 - depth * wave
    radius = np.ones_like(theta)
    for k in range(2, 6):
        radius += rng.uniform(-0.35, 0.35) / (k - 0.5) * np.cos(k * theta + rng.uniform(0, 6.28))
    return np.maximum(radius, 0.25)


SHAPES = ("disc", "superellipse", "polygon", "star", "blob")
"""Kinds of outlines, see :func:`outline_radius`."""


def expose(rng: np.random.Generator, grain: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Take a picture as a camera does: uneven light, soft focus, range of brightness, grain.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the effects and the strength of the grain.
    grain : numpy.random.Generator
        Draws the grain itself; may be `rng`.
    image : numpy.ndarray
        ``(size, size, 3)`` float, colours in about [0, 1].

    Returns
    -------
    numpy.ndarray
        ``(size, size, 3)`` uint8.
    """
    if rng.random() < 0.35:  # uneven light
        angle = rng.uniform(0, 6.28)
        y, x = np.mgrid[0 : len(image), 0 : len(image)].astype(np.float32)
        ramp = (np.cos(angle) * x + np.sin(angle) * y) / len(image)
        image = image * (1 + rng.uniform(0, 0.8) * (ramp - ramp.mean()))[..., None]
    if rng.random() < 0.3:  # soft focus
        image = image.copy()
        image[1:-1] = (image[:-2] + 2 * image[1:-1] + image[2:]) / 4
        image[:, 1:-1] = (image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:]) / 4
    low, high = rng.uniform(0, 0.2), rng.uniform(0.8, 1.0)
    image = low + (high - low) * image + grain.normal(0, rng.uniform(0, 0.03), (*image.shape[:2], 1))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


class Canvas:
    """The picture while it is painted: colours in [0, 1], and who lies on top of each pixel."""

    def __init__(self, rng: np.random.Generator, size: int):
        self.rng, self.size = rng, size
        self.y, self.x = np.mgrid[0:size, 0:size].astype(np.float32)
        self.grey = rng.random() < 0.3
        self.image = self._background()
        self.labels = np.zeros((size, size), np.uint8)
        self.parents, self.areas = [0], [0]

    def _background(self) -> np.ndarray:
        rng, size = self.rng, self.size
        colour = self._colour()
        image = np.broadcast_to(colour, (size, size, 3)).astype(np.float32)
        angle, strength = rng.uniform(0, 6.28), rng.uniform(0, 0.3)
        ramp = (np.cos(angle) * self.x + np.sin(angle) * self.y) / size
        shade = strength * (ramp - ramp.mean()) + rng.uniform(0, 0.12) * noise(rng, size, int(rng.integers(2, 8)))
        shade = shade + rng.uniform(0, 0.10) * texture(rng, size, self.y, self.x)
        tint = 1.0 if self.grey else rng.uniform(0.6, 1.0, 3)
        return image + shade[..., None] * tint

    def _colour(self) -> np.ndarray:
        return np.full(3, self.rng.uniform(0.02, 0.98)) if self.grey else self.rng.uniform(0.02, 0.98, 3)

    def contrasting(self, around: np.ndarray, least: float) -> np.ndarray:
        """A colour at least `least` away (RMS over channels) from `around`."""
        for _ in range(8):
            colour = self._colour()
            if np.sqrt(np.mean((colour - around) ** 2)) >= least:
                break
        return colour

    def paint(
        self,
        cy: float,
        cx: float,
        radius: float,
        kind: str,
        colour: np.ndarray | None = None,
        style: tuple[float, float, float] | None = None,
        parent: int = 0,
        clip: np.ndarray | None = None,
    ) -> int:
        """Paint one shape and return its number (0 if nothing of it lies on the canvas).

        Parameters
        ----------
        style
            Strengths of (texture, spherical shading, linear shading); drawn at random if left out.
        clip
            Boolean mask outside which nothing is painted (for parts).
        """
        rng, size = self.rng, self.size
        reach = radius * 1.9 + 3
        y0, y1 = max(0, int(cy - reach)), min(size, int(cy + reach) + 1)
        x0, x1 = max(0, int(cx - reach)), min(size, int(cx + reach) + 1)
        if y1 - y0 < 4 or x1 - x0 < 4:
            return 0
        y, x = self.y[y0:y1, x0:x1] - cy, self.x[y0:y1, x0:x1] - cx
        turn = rng.uniform(0, 6.28)
        rho, theta = np.hypot(y, x), np.arctan2(y, x) + np.float32(turn)
        outline = radius * outline_radius(rng, theta, kind)
        alpha = np.clip(outline - rho + 0.5, 0, 1)
        if clip is not None:
            alpha = alpha * clip[y0:y1, x0:x1]
        inside = alpha > 0.5
        area = int(inside.sum())
        if area < MIN_VISIBLE_AREA // 2:
            return 0
        patch = self.image[y0:y1, x0:x1]
        if colour is None:
            colour = self.contrasting(patch[inside].mean(0), 0.16)
        grain, sphere, linear = style or (
            rng.uniform(0, 0.16),
            rng.uniform(0, 0.3) * (rng.random() < 0.6),
            rng.uniform(0, 0.2),
        )
        light = rng.uniform(0, 6.28)
        shade = linear * (np.cos(light) * x + np.sin(light) * y) / radius
        shade = shade + grain * texture(rng, max(y.shape), y, x)
        shade = shade + sphere * (0.5 - np.minimum(rho / outline, 1) ** 2)
        if parent == 0 and rng.random() < 0.3:  # a soft shadow beside the object
            dy, dx = int(rng.integers(-5, 6)), int(rng.integers(-5, 6))
            shadow = np.roll(np.clip((outline - rho) / 6 + 0.5, 0, 1), (dy, dx), (0, 1)) * rng.uniform(0.1, 0.4)
            shadow[:6], shadow[-6:], shadow[:, :6], shadow[:, -6:] = 0, 0, 0, 0
            patch *= (1 - shadow)[..., None]
        patch += alpha[..., None] * (colour + shade[..., None] - patch)
        index = len(self.parents)
        self.labels[y0:y1, x0:x1][inside] = index
        self.parents.append(parent)
        self.areas.append(area)
        return index

    def finish(self) -> Scene:
        """Add camera effects and drop hidden objects from the annotation."""
        return Scene(expose(self.rng, self.rng, self.image), *self._annotate())

    def _annotate(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.parents)
        own = np.bincount(self.labels.ravel(), minlength=count)
        parents = np.array(self.parents)
        visible = own + np.bincount(parents, weights=own, minlength=count).astype(int)
        keep = (visible >= MIN_VISIBLE_AREA) & (visible >= MIN_VISIBLE_FRACTION * np.array(self.areas))
        keep[0] = False
        number = np.zeros(count, np.uint8)
        number[keep] = np.arange(1, keep.sum() + 1)
        # a part that is left out still belongs to its whole
        pixels = np.where(keep, number, number[parents])
        return pixels[self.labels].astype(np.uint8), np.concatenate([[0], number[parents[keep]]]).astype(np.uint8)


def _scatter(canvas: Canvas) -> None:
    """A few objects of many sizes that overlap; one in six carries a part in another colour."""
    rng, size = canvas.rng, canvas.size
    for _ in range(int(rng.integers(3, 8))):
        radius = size * np.exp(rng.uniform(np.log(0.06), np.log(0.28)))
        cy, cx = rng.uniform(0.06, 0.94, 2) * size
        index = canvas.paint(cy, cx, radius, str(rng.choice(SHAPES)))
        if index and radius > 0.1 * size and rng.random() < 0.17:
            clip = canvas.labels == index
            canvas.paint(cy, cx, radius * rng.uniform(0.35, 0.6), str(rng.choice(SHAPES)), parent=index, clip=clip)


def _rows(canvas: Canvas) -> None:
    """Many like objects on a loose grid, hardly overlapping (coins, pills, fruit, cells)."""
    rng, size = canvas.rng, canvas.size
    pitch = size * rng.uniform(0.15, 0.3)
    around = canvas.image.mean((0, 1))
    colour = canvas.contrasting(around, 0.18)
    kind = str(rng.choice(SHAPES, p=[0.5, 0.15, 0.1, 0.05, 0.2]))
    style = (rng.uniform(0.02, 0.22), rng.uniform(-0.2, 0.3), rng.uniform(0, 0.15))
    offset = rng.uniform(0.4, 0.7, 2) * pitch
    for gy in np.arange(offset[0], size, pitch):
        for gx in np.arange(offset[1], size, pitch):
            if rng.random() < 0.15:
                continue
            cy, cx = gy + rng.normal(0, 0.07) * pitch, gx + rng.normal(0, 0.07) * pitch
            radius = pitch * rng.uniform(0.28, 0.46)
            canvas.paint(cy, cx, radius, kind, np.clip(colour + rng.normal(0, 0.05), 0, 1), style)


def generate(seed: int, size: int = 256) -> Scene:
    """Make the scene with number `seed`.

    Parameters
    ----------
    seed : int
        Any non-negative integer; equal seeds give equal scenes.
    size : int
        Side of the square picture in pixels.

    Returns
    -------
    Scene
        Picture and annotation, with at least one object.
    """
    rng = np.random.default_rng([0x5A11, seed])
    while True:
        canvas = Canvas(rng, size)
        (_rows if rng.random() < 0.3 else _scatter)(canvas)
        scene = canvas.finish()
        if scene.objects():
            return scene


def scenes(first: int, count: int, size: int = 256) -> Iterator[Scene]:
    """Yield the scenes with seeds ``first .. first + count - 1``."""
    for seed in range(first, first + count):
        yield generate(seed, size)
