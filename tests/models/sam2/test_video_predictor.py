"""The video predictor against upstream's ``SAM2VideoPredictor`` on the same weights, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvm_ahcq.errors import ImageError, PromptError

Call = tuple[str, dict[str, Any]]


def click(frame: int, name: int, points: list[list[int]], labels: list[int], **more: Any) -> Call:
    return "add_new_points_or_box", {"frame_idx": frame, "obj_id": name, "points": points, "labels": labels, **more}


def box(frame: int, name: int, corners: list[int], **more: Any) -> Call:
    return "add_new_points_or_box", {"frame_idx": frame, "obj_id": name, "box": corners, **more}


def mask(frame: int, name: int, x0: int, y0: int, x1: int, y1: int) -> Call:
    plane = np.zeros((90, 120), bool)
    plane[y0:y1, x0:x1] = True
    return "add_new_mask", {"frame_idx": frame, "obj_id": name, "mask": plane}


def propagate(start: int | None = None, count: int | None = None, reverse: bool = False) -> Call:
    return "propagate_in_video", {
        "start_frame_idx": start,
        "max_frame_num_to_track": count,
        "reverse": reverse,
    }


SCENARIOS: dict[str, list[Call]] = {
    "a click": [click(0, 1, [[50, 40]], [1]), propagate()],
    "two objects, corrections, a mask that says absent": [
        box(0, 7, [20, 20, 70, 60]),
        mask(0, 3, 30, 10, 90, 50),
        propagate(),
        click(12, 7, [[60, 40], [10, 10]], [0, 1]),
        click(12, 7, [[30, 40]], [1], clear_old_points=False),
        propagate(),
        mask(14, 3, 0, 0, 0, 0),
        propagate(2, 12),
    ],
    "from the middle, both ways, a late object, one less": [
        click(10, 1, [[50, 40], [20, 20]], [1, 0], box=[10, 10, 80, 70]),
        propagate(),
        propagate(reverse=True),
        click(16, 2, [[90, 60]], [1]),
        propagate(5),
        ("clear_all_prompts_in_frame", {"frame_idx": 10, "obj_id": 2}),
        click(2, 1, [[55, 45]], [1]),
        propagate(1, 3),
        ("remove_object", {"obj_id": 1}),
        propagate(16, 1),
        ("reset_state", {}),
        click(0, 9, [[50, 40]], [1]),
        propagate(count=2),
    ],
    "prompts on several frames, one taken back": [
        mask(0, 1, 10, 10, 60, 60),
        mask(8, 1, 30, 10, 80, 60),
        propagate(),
        ("clear_all_prompts_in_frame", {"frame_idx": 8, "obj_id": 1}),
        propagate(),
        propagate(19, reverse=True),
    ],
}


def assert_same(ours: tuple[int, Any, np.ndarray], theirs: tuple[int, Any, Any], least_iou: float) -> None:
    """Compare frame, names and logits; pixels that non-overlap decides by the last bit count as IoU."""
    assert ours[0] == theirs[0] and list(ours[1]) == list(theirs[1])
    a, b = ours[2], theirs[2].numpy()
    assert a.shape == b.shape and a.dtype == np.float32
    union = ((a > 0) | (b > 0)).sum()
    assert union == 0 or ((a > 0) & (b > 0)).sum() >= least_iou * union
    if least_iou == 1.0:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-2)


def follow(predictors: tuple[Any, Any], folder: Path, calls: list[Call], least_iou: float = 0.99) -> set[bool]:
    """Make the same calls of both, compare every output; return whether objects were there and were not."""
    theirs, ours = predictors
    states = theirs.init_state(str(folder)), ours.init_state(folder)
    seen = set()
    for name, arguments in calls:
        found = [getattr(each, name)(state, **arguments) for each, state in zip(predictors, states, strict=True)]
        if name == "propagate_in_video":
            pairs = list(zip(*found, strict=True))
        elif name == "remove_object":
            assert found[0][0] == found[1][0]
            frames = [sorted((frame, names, masks) for names, each in [result] for frame, masks in each) for result in found]
            pairs = list(zip(*frames, strict=True))
            pairs = [tuple((frame, names, masks) for frame, names, masks in pair) for pair in pairs]
        else:
            pairs = [] if found[0] is None else [tuple(found)]
        for upstream, own in pairs:
            assert_same(own, upstream, least_iou)
            a, b = own[2], upstream[2].numpy()
            error = float(np.abs(a - b).max())
            print(name, own[0], f"{error:.1e}", f"max {np.abs(b[b > -1000]).max() if (b > -1000).any() else 0:.1f}", f"{(b > 0).mean():.2f}")
            seen |= {bool(each.max() > 0) for each in own[2]}
    return seen


@pytest.mark.parametrize("present", [3.0, 0.0, -3.0])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_every_frame_is_upstreams(video_pair, clip_folder, scenario: list[Call], present: float) -> None:
    follow(video_pair(present), clip_folder, scenario)
