"""Prompts on pictures without annotation, chosen so that the float model's masks of them are stable.

A random click often lies between objects, or on one that several masks describe: such a mask changes with the slightest
error, and says little about a quantizer. As SAM's automatic mask generator does, clicks are chosen by the stability of
their masks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tvm_ahcq.api import float_session
from tvm_ahcq.models.description import DECODE, ENCODE
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import prompting_of
from tvm_ahcq.progress import Progress, silent

from .probes import BOXES, CLICKS, Probe, in_frame

CANDIDATES = 32
"""Clicks that are tried on each picture."""

OFFSET = 1.0
"""Logits by which the threshold is moved up and down: the default of SAM's automatic mask generator."""


def stable_probes(
    model: FloatModel, images: Iterable[np.ndarray], seed: int = 0, progress: Progress = silent
) -> list[Probe]:
    """Return the clicks whose masks are the most stable of many, and boxes around these masks.

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
    images, spec, session, probes = list(images), model.spec, float_session(model), []
    prompting, encode, decode = prompting_of(spec), *(model.family.function_name(each) for each in (ENCODE, DECODE))
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        height, width = image.shape[:2]
        tried = Probe(image, rng.uniform(0.05, 0.95, (CANDIDATES, 2)) * (width, height), np.zeros((0, 4)))
        placed = in_frame(tried, spec)
        masks, scores = session.run(decode, *session.run(encode, placed.image), *placed.prompts)
        best = masks[np.arange(CANDIDATES), prompting.choose(scores, CANDIDATES)]
        logits = prompting.crop(spec, best, placed)
        order = np.argsort(-stability(logits, spec.mask_threshold), kind="stable")[:CLICKS]
        boxes = _boxes(logits[order] > spec.mask_threshold, (height, width))
        probes.append(Probe(image, tried.clicks[order], boxes[:BOXES]))
        progress("prompts with stable masks", number + 1, len(images))
    return probes


def stability(logits: np.ndarray, threshold: float) -> np.ndarray:
    """Return the IoU of the masks at thresholds `OFFSET` above and below; 0 for an empty mask.

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
    """Return ``(Q, 4)`` boxes, in pixels, around the masks that are not empty."""
    found = []
    for mask in masks:
        y, x = np.nonzero(mask)
        if len(y):
            found.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    scale = np.array([size[1] / masks.shape[2], size[0] / masks.shape[1]])
    return np.array(found, float).reshape(-1, 4) * np.tile(scale, 2)
