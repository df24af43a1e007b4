"""Pictures with prompts that stand for how a model will be used: clicks and boxes whose masks are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.evaluate.metrics.scene_accuracy import prompted_objects
from tvm_ahcq.image_files import check_image
from tvm_ahcq.models.description import ModelSpec
from tvm_ahcq.models.sam.image import ResizeLongestSide, preprocess
from tvm_ahcq.scenes import Scene

CLICKS, BOXES = 6, 4
"""Prompts of a picture without annotation."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One picture with prompts, each for one mask.

    Attributes
    ----------
    image : numpy.ndarray
        ``(H, W, 3)`` uint8, RGB.
    clicks : numpy.ndarray
        ``(P, 2)`` float: x, y in pixels; of three masks, the one that the model scores best counts.
    boxes : numpy.ndarray
        ``(Q, 4)`` float: x0, y0, x1, y1 in pixels; the single mask counts.
    """

    image: np.ndarray
    clicks: np.ndarray
    boxes: np.ndarray

    @property
    def prompts(self) -> int:
        """Number of clicks and boxes."""
        return len(self.clicks) + len(self.boxes)


@dataclass(frozen=True, eq=False)
class Frame:
    """A probe in the model's frame.

    Attributes
    ----------
    image : numpy.ndarray
        ``(1, 3, S, S)`` float32, preprocessed.
    coords, labels : numpy.ndarray
        ``(B, 2, 2)`` and ``(B, 2)`` float32: clicks with a padding point, then corners of boxes.
    clicks : int
        How many of them are clicks.
    input_size : tuple of int
        ``(H, W)`` of the picture within the frame.
    """

    image: np.ndarray
    coords: np.ndarray
    labels: np.ndarray
    clicks: int
    input_size: tuple[int, int]


def random_probes(images: Iterable[np.ndarray], seed: int = 0) -> list[Probe]:
    """Random clicks and boxes on pictures that nobody has annotated."""
    probes = []
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        height, width = check_image(image).shape[:2]
        centre, half = rng.uniform(0.25, 0.75, (BOXES, 2)), rng.uniform(0.05, 0.25, (BOXES, 2))
        boxes = np.concatenate([centre - half, centre + half], 1) * (width, height, width, height)
        probes.append(Probe(image, rng.uniform(0.05, 0.95, (CLICKS, 2)) * (width, height), boxes))
    return probes


def scene_probes(scenes: Iterable[Scene]) -> list[Probe]:
    """A click inside and a box around every annotated object of generated scenes."""
    probes = []
    for scene in scenes:
        objects = prompted_objects(scene)
        probes.append(Probe(scene.image, objects.clicks, objects.boxes))
    return probes


def on_the_picture(logits: np.ndarray, frame: Frame, image_size: int) -> np.ndarray:
    """The part of low-resolution logits ``(B, h, w)`` that the frame's padding does not fill."""
    height, width = (-(-side * logits.shape[-1] // image_size) for side in frame.input_size)
    return logits[:, :height, :width]


def in_frame(probe: Probe, model: ModelSpec) -> Frame:
    """The probe as the model's functions take it."""
    transform = ResizeLongestSide(model.image_size)
    size = check_image(probe.image).shape[:2]
    resized = transform.apply_image(probe.image)
    clicks = transform.apply_coords(probe.clicks, size).reshape(-1, 1, 2)
    boxes = transform.apply_boxes(probe.boxes, size).reshape(-1, 2, 2)
    coords = np.concatenate([np.concatenate([clicks, np.zeros_like(clicks)], 1), boxes])
    labels = np.array([[1, -1]] * len(clicks) + [[2, 3]] * len(boxes))
    image = preprocess(resized.transpose(2, 0, 1)[None], model)
    return Frame(image, coords.astype(np.float32), labels.astype(np.float32), len(clicks), resized.shape[:2])
