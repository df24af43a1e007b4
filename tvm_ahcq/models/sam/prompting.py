"""Prompts and masks of SAM in its own frame, for sensitivity analysis."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.image_files import check_image
from tvm_ahcq.models.evaluation import PromptedImage, Prompting

from .image import ResizeLongestSide, preprocess
from .masks import threshold_masks
from .spec import SamSpec


def place(spec: SamSpec, image: np.ndarray, clicks: np.ndarray, boxes: np.ndarray) -> PromptedImage:
    """Return a picture with clicks ``(P, 2)`` and boxes ``(Q, 4)`` as the functions of a SAM take them.

    The prompts are coordinates ``(P + Q, 2, 2)`` and labels ``(P + Q, 2)``, float32: clicks with a padding point, then
    corners of boxes.
    """
    transform = ResizeLongestSide(spec.image_size)
    size = check_image(image).shape[:2]
    resized = transform.apply_image(image)
    points = transform.apply_coords(clicks, size).reshape(-1, 1, 2)
    corners = transform.apply_boxes(boxes, size).reshape(-1, 2, 2)
    coords = np.concatenate([np.concatenate([points, np.zeros_like(points)], 1), corners])
    labels = np.array([[1, -1]] * len(points) + [[2, 3]] * len(corners))
    tensor = preprocess(resized.transpose(2, 0, 1)[None], spec)
    prompts = coords.astype(np.float32), labels.astype(np.float32)
    return PromptedImage(tensor, prompts, len(points), resized.shape[:2])


def choose(scores: np.ndarray, clicks: int) -> np.ndarray:
    """Return the index of the mask that counts: for clicks the best scored of three, for boxes the single one."""
    choice = np.zeros(len(scores), np.intp)
    choice[:clicks] = 1 + scores[:clicks, 1:].argmax(1)
    return choice


def crop(spec: SamSpec, logits: np.ndarray, placed: PromptedImage) -> np.ndarray:
    """Return the part of low-resolution logits ``(B, h, w)`` that padding does not fill."""
    height, width = (-(-side * logits.shape[-1] // spec.image_size) for side in placed.input_size)
    return logits[:, :height, :width]


def enlarge(spec: SamSpec, logits: np.ndarray, placed: PromptedImage, size: tuple[int, int]) -> np.ndarray:
    """Return the masks of low-resolution logits ``(B, h, w)`` at the size of the picture: ``(B, H, W)`` bool."""
    return threshold_masks(logits, spec.image_size, placed.input_size, size, spec.mask_threshold)


PROMPTING = Prompting(place, choose, crop, enlarge)
