"""Prompts of videos: checked, and brought into the model's frame."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tvm_ahcq.errors import PromptError
from tvm_ahcq.models.sam import prompts

from .image import resize_smoothly, to_model_frame
from .predictor import LABELS
from .spec import Sam2Spec
from .track_frame import Points, join_points
from .video_state import TrackedObject, VideoState


class NoPromptError(PromptError, RuntimeError):
    """Tracking was asked for before any prompt; a ``RuntimeError`` too, which upstream raises."""


def check_points(model: Sam2Spec, points: Any, labels: Any, box: Any, size: tuple[int, int]) -> Points:
    """Return points and the corners of a box in the model's frame, the box in front.

    Parameters
    ----------
    model : Sam2Spec
        Figures of the model.
    points, labels : array-like or None
        ``(N, 2)`` or ``(1, N, 2)``, and ``(N,)`` or ``(1, N)``.
    box : array-like or None
        ``(4,)``.
    size : tuple of int
        Height and width that they are pixels of.

    Raises
    ------
    PromptError
        There is neither, or one has a wrong shape or label or lies outside.
    """
    if points is None and labels is None and box is None:
        raise PromptError("there is no prompt; expected points with labels, or a box")
    found = Points(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    if box is not None:
        corners = prompts.check_box(np.reshape(np.asarray(box), -1)).reshape(2, 2)
        prompts.check_inside("box corner", corners, size)
        box_labels = np.array([prompts.TOP_LEFT, prompts.BOTTOM_RIGHT], np.float32)
        found = Points(to_model_frame(model, corners, size), box_labels)
    if points is not None or labels is not None:
        batched = points is not None and np.ndim(points) == 3
        coords, checked = prompts.check_points(points, labels, batched, LABELS)
        if batched:
            if len(coords) != 1:
                raise PromptError(f"points are for {len(coords)} objects; expected one object a call, (N, 2)")
            coords, checked = coords[0], checked[0]
        used = checked != prompts.PADDING
        prompts.check_inside("point", np.where(used[:, None], coords, 0), size)
        found = join_points(found, Points(to_model_frame(model, coords, size), checked))
    return found


def check_mask(model: Sam2Spec, mask: Any) -> np.ndarray:
    """Return a mask ``(H, W)`` as ``(S, S)`` bool; PromptError if it has another shape."""
    array = np.asarray(mask)
    if array.ndim != 2 or 0 in array.shape or array.dtype == object:
        raise PromptError(f"mask has shape {array.shape}, expected (H, W): True on the object")
    plane, side = array.astype(bool), (model.image_size, model.image_size)
    return plane if plane.shape == side else resize_smoothly(plane, side) >= 0.5


def check_prompted(state: VideoState) -> None:
    """Refuse to track without a prompt for every object; raises :class:`NoPromptError`."""
    if not state.objects:
        raise NoPromptError("there are no prompts; expected add_new_points_or_box or add_new_mask before tracking")
    for name, each in state.objects.items():
        if not each.is_prompted:
            raise NoPromptError(f"object {name!r} has no prompt; add one, or remove_object({name!r})")


def check_frame(state: VideoState, frame: Any) -> int:
    """Return the number of a frame; PromptError if there is none of that number."""
    count = len(state.frames)
    try:
        number = operator.index(frame)
    except TypeError as error:
        raise PromptError(f"frame_idx is {frame!r}; expected a number from 0 to {count - 1}") from error
    if not 0 <= number < count:
        raise PromptError(f"frame {number} is not in the video; it has {count} frames, 0 to {count - 1}")
    return number


def check_object(state: VideoState, name: Any) -> TrackedObject:
    """Return the object of a name; PromptError if there is none."""
    found = state.objects.get(name)
    if found is not None:
        return found
    known = ", ".join(map(repr, state.objects)) or "none yet"
    raise PromptError(f"there is no object {name!r}; expected one of those that were prompted: {known}")
