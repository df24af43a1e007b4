"""Prompts of ``tvm-ahcq track``: checked against the video, drawn, and given to the predictor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tvm_ahcq.errors import AhcqError, PromptError
from tvm_ahcq.frames import Frames
from tvm_ahcq.image_files import load_image
from tvm_ahcq.runtime.video_overlay import DrawnPrompts

from .arguments import UsageError
from .track_arguments import Prompt


def check_prompts(prompts: Sequence[Prompt], frames: Frames) -> dict[int, DrawnPrompts]:
    """Refuse prompts that do not fit the video; return by frame what to draw.

    Raises
    ------
    PromptError
        A frame is not in the video, or a prompt lies outside it.
    UsageError
        An object has two prompts on a frame that exclude each other.
    """
    drawn: dict[int, DrawnPrompts] = {}
    for prompt in prompts:
        if prompt.frame >= len(frames):
            raise PromptError(
                f"--{prompt.kind} ...@{prompt.frame}: the video has {len(frames)} frames, 0 to {len(frames) - 1}"
            )
        on_frame = drawn.setdefault(prompt.frame, DrawnPrompts())
        if prompt.kind == "point":
            _check_inside(prompt, [prompt.value[:2]], frames.size)
            on_frame.points.append(prompt.value[:2])
            on_frame.labels.append(prompt.value[2])
        elif prompt.kind == "box":
            _check_inside(prompt, [prompt.value[:2], prompt.value[2:]], frames.size)
            on_frame.boxes.append(prompt.value)
        else:
            read_mask(prompt, frames.size)
    for (number, frame), group in _groups(prompts).items():
        kinds = [prompt.kind for prompt in group]
        if kinds.count("box") > 1 or ("mask" in kinds and len(kinds) > 1):
            raise UsageError(
                f"track: object {number} has {' and '.join(kinds)} on frame {frame}; expected one mask, or one box "
                "with points; --object starts another object"
            )
    return drawn


def add_prompts(predictor: Any, state: Any, prompts: Sequence[Prompt]) -> Iterator[tuple[int, int, int]]:
    """Give prompts to a predictor; yield number of the object, number of the frame, and pixels found there."""
    for (number, frame), group in _groups(prompts).items():
        if group[0].kind == "mask":
            found = predictor.add_new_mask(state, frame, number, read_mask(group[0], state.frames.size))
        else:
            points = [prompt.value for prompt in group if prompt.kind == "point"]
            found = predictor.add_new_points_or_box(
                state,
                frame,
                number,
                points=[each[:2] for each in points] or None,
                labels=[each[2] for each in points] or None,
                box=next((prompt.value for prompt in group if prompt.kind == "box"), None),
            )
        _, names, logits = found
        yield number, frame, int((logits[names.index(number)] > 0).sum())


def read_mask(prompt: Prompt, size: tuple[int, int]) -> np.ndarray:
    """Return the mask ``(H, W)`` bool of a picture file; PromptError if it has another size than the video."""
    mask = np.asarray(load_image(prompt.value).any(axis=2))
    if mask.shape != size:
        raise PromptError(
            f"{prompt.value}: has {mask.shape[1]} x {mask.shape[0]} pixels (width x height), the video has "
            f"{size[1]} x {size[0]}; expected the same size"
        )
    return mask


def _groups(prompts: Sequence[Prompt]) -> dict[tuple[int, int], list[Prompt]]:
    """Prompts by object and frame."""
    groups: dict[tuple[int, int], list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda each: each.object):
        groups.setdefault((prompt.object, prompt.frame), []).append(prompt)
    return groups


def _check_inside(prompt: Prompt, corners: Sequence[tuple[float, ...]], size: tuple[int, int]) -> None:
    from tvm_ahcq.models.sam.prompts import check_inside

    try:
        check_inside(prompt.kind, np.array(corners), size)
    except AhcqError as error:
        raise PromptError(f"frame {prompt.frame}: {error}") from error
