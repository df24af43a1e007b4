"""Probes: pictures with clicks and boxes whose masks are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.evaluate.metrics.scene_accuracy import prompted_objects
from tvm_ahcq.image_files import check_image
from tvm_ahcq.models.description import ModelSpec
from tvm_ahcq.models.evaluation import PromptedImage
from tvm_ahcq.models.registry import prompting_of
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


def random_probes(images: Iterable[np.ndarray], seed: int = 0) -> list[Probe]:
    """Return random clicks and boxes on pictures without annotation."""
    probes = []
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        height, width = check_image(image).shape[:2]
        centre, half = rng.uniform(0.25, 0.75, (BOXES, 2)), rng.uniform(0.05, 0.25, (BOXES, 2))
        boxes = np.concatenate([centre - half, centre + half], 1) * (width, height, width, height)
        probes.append(Probe(image, rng.uniform(0.05, 0.95, (CLICKS, 2)) * (width, height), boxes))
    return probes


def scene_probes(scenes: Iterable[Scene]) -> list[Probe]:
    """Return a click inside and a box around every annotated object of generated scenes."""
    probes = []
    for scene in scenes:
        objects = prompted_objects(scene)
        probes.append(Probe(scene.image, objects.clicks, objects.boxes))
    return probes


def in_frame(probe: Probe, model: ModelSpec) -> PromptedImage:
    """Return the probe as the functions of a model take it."""
    return prompting_of(model).place(model, probe.image, probe.clicks, probe.boxes)
