"""A calibration sample on its way through SAM 2: a picture or a clip, with clicks and boxes at random places."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ahcq.models.execution import Call, Driver
from tvm_ahcq.models.sam.driver import calibration_prompts

from .drive_memory import Tracked, track
from .spec import Sam2Spec

_TRACKED = [0, 6]
"""Prompts whose objects are tracked: a click and a box."""

PADDING_POINT = -1
"""Label of the point that upstream appends to every prompt."""


def with_padding(coords: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points ``(B, N, 2)`` and labels ``(B, N)`` as float32 with the padding point behind them."""
    batch = len(coords)
    coords = np.concatenate([coords, np.zeros((batch, 1, 2))], axis=1)
    labels = np.concatenate([labels, np.full((batch, 1), PADDING_POINT)], axis=1)
    return coords.astype(np.float32), labels.astype(np.float32)


def sample_prompts(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return six clicks and four boxes at random places of a square of side `size`: ``(10, 3, 2)`` and ``(10, 3)``."""
    return with_padding(*calibration_prompts(size, seed))


def drive(spec: Sam2Spec, sample: Any, seed: int) -> Driver:
    """Encode an image, decode prompts, and decode them again with the best mask of each as a mask prompt.

    With the functions of the memory, objects are then tracked through the frames of the sample.

    Parameters
    ----------
    spec : Sam2Spec
        Figures of the model.
    sample : array
        Model input ``(1, 3, S, S)``, or that of the frames of a clip ``(T, 1, 3, S, S)``, float32.
    seed : int
        Of the prompts.
    """
    frames = sample if sample.ndim == 5 else [sample]
    features = yield Call("encode_image", (frames[0],))
    prompts = sample_prompts(spec.image_size, seed)
    masks, scores, pointers, objects = yield Call("decode", (*features[:3], *prompts))
    rows, chosen = list(range(len(masks))), scores.argmax(1)
    best = masks[rows, chosen][:, None]
    yield Call("decode_mask", (*features[:3], *prompts, best))
    if spec.video:
        tracked = Tracked(_array(best)[_TRACKED], _array(pointers[rows, chosen])[_TRACKED], _array(objects)[_TRACKED])
        yield from track(spec, frames, features, tracked, np.random.default_rng(seed))


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)
