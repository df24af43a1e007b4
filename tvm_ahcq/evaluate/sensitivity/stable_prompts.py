"""Prompts on pictures that nobody has annotated, chosen so that the float model's masks of them are settled.

A random click is often between things, or on something of which several masks would do: such a mask changes at a touch,
and says little about a quantizer. SAM's automatic mask generator keeps masks by their stability; so do we.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tvm_ahcq.api import float_session
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.functions import SamFunctions

from .probes import BOXES, CLICKS, Probe, in_frame, on_the_picture

CANDIDATES = 32
"""Clicks that are tried on each picture."""

OFFSET = 1.0
"""Logits by which the threshold is moved up and down: the default of SAM's automatic mask generator."""

Progress = Callable[[str, int, int], None]


def settled_probes(
    model: FloatModel, images: Iterable[np.ndarray], seed: int = 0, progress: Progress = lambda *_: None
) -> list[Probe]:
    """Clicks whose masks are the most stable of many, and boxes around these masks.

    Parameters
    ----------
    model : FloatModel
        Float.
    images : iterable of numpy.ndarray
        ``(H, W, 3)`` uint8, RGB.
    seed : int
        Of the clicks.
    progress : callable
        Told of every finished picture.

    Returns
    -------
    list of Probe
        One a picture, with `CLICKS` clicks and at most `BOXES` boxes.
    """
    images, functions, probes = list(images), SamFunctions(float_session(model)), []
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        height, width = image.shape[:2]
        tried = Probe(image, rng.uniform(0.05, 0.95, (CANDIDATES, 2)) * (width, height), np.zeros((0, 4)))
        frame = in_frame(tried, model.spec)
        masks, scores = functions.decode(functions.encode(frame.image), frame.coords, frame.labels)
        best = np.asarray(masks)[np.arange(CANDIDATES), 1 + np.asarray(scores)[:, 1:].argmax(1)]
        logits = on_the_picture(best, frame, model.spec.image_size)
        order = np.argsort(-stability(logits, model.spec.mask_threshold), kind="stable")[:CLICKS]
        boxes = _boxes(logits[order] > model.spec.mask_threshold, (height, width))
        probes.append(Probe(image, tried.clicks[order], boxes[:BOXES]))
        progress("prompts with settled masks", number + 1, len(images))
    return probes


def stability(logits: np.ndarray, threshold: float) -> np.ndarray:
    """How little masks change with the threshold: IoU of those `OFFSET` above and below it; 0 of an empty mask.

    Parameters
    ----------
    logits : numpy.ndarray
        ``(B, h, w)`` float32.
    threshold : float
        Of the model's masks.
    """
    inner, outer = ((logits > threshold + offset).sum((1, 2)) for offset in (OFFSET, -OFFSET))
    return np.where(outer > 0, inner / np.maximum(outer, 1), 0.0)


def _boxes(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(Q, 4)`` boxes, in pixels, around the masks that are not empty."""
    found = []
    for mask in masks:
        y, x = np.nonzero(mask)
        if len(y):
            found.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    scale = np.array([size[1] / masks.shape[2], size[0] / masks.shape[1]])
    return np.array(found, float).reshape(-1, 4) * np.tile(scale, 2)
