"""A calibration sample on its way through SAM: one image, with clicks and boxes at random places."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ahcq.models.execution import Call, Driver

from .spec import SamSpec


def calibration_prompts(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return clicks and boxes at random places.

    Parameters
    ----------
    size : int
        Side of the model input in pixels.
    seed : int
        Of the random places.

    Returns
    -------
    coords : numpy.ndarray
        ``(10, 2, 2)`` float32, x and y in model pixels: six clicks with a padding point, four boxes.
    labels : numpy.ndarray
        ``(10, 2)`` float32.
    """
    rng = np.random.default_rng(seed)
    clicks = np.zeros((6, 2, 2))
    clicks[:, 0] = rng.uniform(0.05, 0.95, (6, 2)) * size
    centre, half = rng.uniform(0.25, 0.75, (4, 2)), rng.uniform(0.05, 0.25, (4, 2))
    boxes = np.stack([centre - half, centre + half], 1) * size
    labels = np.array([[1, -1]] * 6 + [[2, 3]] * 4)
    return np.concatenate([clicks, boxes]).astype(np.float32), labels.astype(np.float32)


def drive(spec: SamSpec, sample: Any, seed: int) -> Driver:
    """Encode an image, decode prompts, and decode them again with the best mask of each as a mask prompt.

    Parameters
    ----------
    spec : SamSpec
        Figures of the model.
    sample : array
        Model input ``(1, 3, S, S)`` float32.
    seed : int
        Of the prompts.
    """
    embedding = yield Call("encode_image", (sample,))
    prompts = calibration_prompts(spec.image_size, seed)
    masks, scores = yield Call("decode", (embedding, *prompts))
    best = masks[list(range(len(masks))), scores.argmax(1)][:, None]
    yield Call("decode_mask", (embedding, *prompts, best))
