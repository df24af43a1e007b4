"""Prompts and masks of SAM 2 in its own frame, for sensitivity analysis."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.models.evaluation import PromptedImage, Prompting
from tvm_ahcq.models.sam.prompting import choose

from .driver import with_padding
from .image import prepare, to_model_frame
from .masks import enlarge_above
from .spec import Sam2Spec


def place(spec: Sam2Spec, image: np.ndarray, clicks: np.ndarray, boxes: np.ndarray) -> PromptedImage:
    """Return a picture with clicks ``(P, 2)`` and boxes ``(Q, 4)`` as the functions of a SAM 2 take them.

    The prompts are coordinates ``(P + Q, 3, 2)`` and labels ``(P + Q, 3)``, float32: clicks with two padding points,
    corners of boxes with one.
    """
    size = (image.shape[0], image.shape[1])
    points = to_model_frame(spec, np.asarray(clicks).reshape(-1, 1, 2), size)
    corners = to_model_frame(spec, np.asarray(boxes).reshape(-1, 2, 2), size)
    coords = np.concatenate([np.concatenate([points, np.zeros_like(points)], 1), corners])
    labels = np.array([[1, -1]] * len(points) + [[2, 3]] * len(corners))
    prompts = with_padding(coords, labels)
    return PromptedImage(prepare(spec, image), prompts, len(points), (spec.image_size, spec.image_size))


def crop(spec: Sam2Spec, logits: np.ndarray, placed: PromptedImage) -> np.ndarray:
    """Return low-resolution logits ``(B, h, w)`` as they are: a squashed picture fills the square."""
    return logits


def enlarge(spec: Sam2Spec, logits: np.ndarray, placed: PromptedImage, size: tuple[int, int]) -> np.ndarray:
    """Return the masks of low-resolution logits ``(B, h, w)`` at the size of the picture: ``(B, H, W)`` bool."""
    return enlarge_above(logits, size, spec.mask_threshold)


PROMPTING = Prompting(place, choose, crop, enlarge)
