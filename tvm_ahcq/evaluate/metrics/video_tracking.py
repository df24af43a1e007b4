"""Masks of all objects of a video from one prompt each, as ``vos_inference`` of SAM 2 makes them from masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.object_prompts import deepest_pixel, tight_box
from tvm_ahcq.evaluate.datasets.video_folders import Video
from tvm_ahcq.evaluate.datasets.video_objects import VideoObject

if TYPE_CHECKING:
    from tvm_ahcq.models.execution import VideoPredictor


PROMPTS = ("mask", "click", "box")
"""How an object is shown: by its mask, by a click on its pixel furthest from its border, or by a tight box."""


def track(
    predictor: VideoPredictor, video: Video, objects: Sequence[VideoObject], prompt: str = "mask"
) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    """Follow the objects of a video from the first frame on which each is annotated.

    Objects that start on different frames do not see one another: the predictor goes through the video once for each
    such frame, from there on. Objects of one frame share the encoded pictures.

    Parameters
    ----------
    predictor : VideoPredictor
        Without constraints between objects (``non_overlap_masks=False``).
    video : Video
        From :func:`.video_folders.read_videos`.
    objects : sequence of VideoObject
        From :func:`.video_objects.video_objects`.
    prompt : str
        One of :data:`PROMPTS`.

    Yields
    ------
    frame : int
        Index of each frame, in order.
    logits : dict
        Float32 ``(H, W)`` by number, of the objects that have been shown by then.

    Raises
    ------
    EvaluationError
        A file cannot be read, or the predictor returns other frames or sizes than it should.
    """
    states, runs = [], []
    for first in sorted({each.first for each in objects}):
        state = predictor.init_state(str(video.folder))
        masks = video.read_masks(first)
        for each in objects:
            if each.first == first:
                _show(predictor, state, each, masks[each.number], prompt)
        states.append(state)
        runs.append((first, predictor.propagate_in_video(state, start_frame_idx=first)))
    for frame in range(len(video.frames)):
        logits: dict[int, np.ndarray] = {}
        for first, run in runs:
            if first <= frame:
                logits.update(_next(video, frame, run))
        yield frame, logits
    for state in states:
        predictor.reset_state(state)


def _show(predictor: VideoPredictor, state: Any, shown: VideoObject, mask: np.ndarray, prompt: str) -> None:
    """Show an object on its first frame."""
    if prompt == "mask":
        predictor.add_new_mask(state, shown.first, shown.number, mask)
    elif prompt == "click":
        predictor.add_new_points_or_box(state, shown.first, shown.number, points=[deepest_pixel(mask)], labels=[1])
    elif prompt == "box":
        predictor.add_new_points_or_box(state, shown.first, shown.number, box=tight_box(mask))
    else:
        raise EvaluationError(f"prompt is {prompt!r}; expected one of {', '.join(PROMPTS)}")


def _next(video: Video, frame: int, run: Iterator[tuple[int, Sequence[int], np.ndarray]]) -> dict[int, np.ndarray]:
    index, numbers, logits = next(run, (None, (), np.empty((0, 1, *video.size))))
    if index != frame or logits.shape != (len(numbers), 1, *video.size):
        raise EvaluationError(
            f"{video.folder}: the predictor returned frame {index} with masks {logits.shape} for frame {frame} of "
            f"{len(video.frames)}, size {video.size}; are all of its frames of that size?"
        )
    return {int(number): each for number, each in zip(numbers, logits[:, 0], strict=True)}


def to_masks(
    logits: Mapping[int, np.ndarray],
    numbers: Sequence[int],
    size: tuple[int, int],
    threshold: float = 0.0,
    overlap: bool = False,
) -> dict[int, np.ndarray]:
    """Masks of objects from their logits.

    Parameters
    ----------
    logits : mapping
        Float32 ``(H, W)`` by number; objects that have not been shown yet are missing.
    numbers : sequence of int
        All objects.
    size : tuple of int
        ``(H, W)``.
    threshold : float
        A pixel belongs to an object if its logit is above.
    overlap : bool
        Pixels may belong to several objects; else to the one with the highest logit, of equals the lowest number.

    Returns
    -------
    dict
        Bool ``(H, W)`` by number, of all objects.
    """
    masks = {number: np.zeros(size, bool) for number in numbers}
    known = sorted(logits)
    if overlap or len(known) < 2:
        return masks | {number: logits[number] > threshold for number in known}
    values = np.stack([logits[number] for number in known])
    best = values.argmax(axis=0)
    return masks | {number: (best == index) & (values[index] > threshold) for index, number in enumerate(known)}
