"""A calibration sample on its way through the memory of SAM 2: objects of the first frame, found on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_ahcq.models.execution import Call, Driver

from .masks import enlarge, memory_input
from .spec import Sam2Spec


@dataclass(frozen=True)
class Tracked:
    """What a frame gives of B objects.

    Attributes
    ----------
    masks : numpy.ndarray
        ``(B, 1, 4 grid, 4 grid)`` float32 logits.
    pointers : numpy.ndarray
        ``(B, C)`` float32.
    scores : numpy.ndarray
        ``(B, 1)`` float32 logits.
    """

    masks: np.ndarray
    pointers: np.ndarray
    scores: np.ndarray


def track(spec: Sam2Spec, frames: Sequence[Any], features: Any, tracked: Tracked, rng: np.random.Generator) -> Driver:
    """Remember the objects of the first frame, and find them on every frame from the memories of those before.

    A picture is a clip in which nothing moves: a random number of memories and pointers is the first ones repeated, so
    that every slot and every distance is seen, and all samples make the same calls up to there.

    Parameters
    ----------
    spec : Sam2Spec
        Figures of the model.
    frames : sequence of array
        Model inputs ``(1, 3, S, S)``.
    features : tuple of array
        Of the first frame.
    tracked : Tracked
        Objects of the first frame.
    rng : numpy.random.Generator
        For the numbers of memories and pointers.
    """
    memory = np.asarray((yield _remember(spec, features, tracked)))
    tokens = yield Call("attend_frame", (features[3],))
    count = int(rng.integers(spec.memories))
    slots = np.array([0, *range(spec.memories - count, spec.memories)])
    distances = np.arange(1 + int(rng.integers(spec.max_pointers)))[::-1]
    repeated = memory[:1].repeat(len(slots), 0), slots, tracked.pointers[:1].repeat(len(distances), 0)
    embedding = yield Call("attend_memory", (tokens, *repeated, _scaled(spec, distances)))
    yield _decode(embedding, features)
    memories, pointers = [memory], [tracked.pointers]
    for frame in frames[1:]:
        features = yield Call("encode_image", (frame,))
        tokens = yield Call("attend_frame", (features[3],))
        tracked = yield from _find(spec, features, tokens, memories, pointers)
        memories.append(np.asarray((yield _remember(spec, features, tracked))))
        pointers.append(tracked.pointers)


def _find(
    spec: Sam2Spec, features: Any, tokens: Any, memories: Sequence[np.ndarray], pointers: Sequence[np.ndarray]
) -> Any:
    """Find every object on a frame; what it gives of them."""
    latest = min(len(memories) - 1, spec.memories - 1)
    chosen = [memories[0], *memories[len(memories) - latest :]]
    slots = np.array([0, *range(spec.memories - latest, spec.memories)])
    nearest = pointers[-(spec.max_pointers - 1) :]
    distances = np.arange(len(nearest), 0, -1)
    found = []
    for index in range(len(memories[0])):
        of_object = np.stack([memory[index] for memory in chosen]), slots, np.stack([each[index] for each in nearest])
        embedding = yield Call("attend_memory", (tokens, *of_object, _scaled(spec, distances)))
        masks, scores, pointer, objects = yield _decode(embedding, features)
        best = 1 + int(scores[0, 1:].argmax())
        found.append([np.asarray(x, np.float32) for x in (masks[:, best, None], pointer[:, best], objects)])
    return Tracked(*(np.concatenate(values) for values in zip(*found, strict=True)))


def _remember(spec: Sam2Spec, features: Any, tracked: Tracked) -> Call:
    side = (spec.image_size, spec.image_size)
    return Call("encode_memory", (features[3], memory_input(spec, enlarge(tracked.masks, side)), tracked.scores))


def _decode(embedding: Any, features: Any) -> Call:
    """Decode without a prompt: two padding points, as upstream."""
    return Call("decode", (embedding, *features[1:3], np.zeros((1, 2, 2), np.float32), -np.ones((1, 2), np.float32)))


def _scaled(spec: Sam2Spec, distances: np.ndarray) -> np.ndarray:
    return (distances / (spec.max_pointers - 1)).astype(np.float32)
