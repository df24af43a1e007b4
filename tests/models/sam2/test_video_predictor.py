"""The video predictor against upstream's ``SAM2VideoPredictor`` on the same weights, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvm_ahcq.errors import ImageError, PromptError

Call = tuple[str, dict[str, Any]]

BOTH = 6.725
"""With this on its score, the object comes and goes."""


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
        mask(3, 1, 20, 10, 70, 60),
        propagate(),
        click(15, 1, [[40, 40]], [0]),
        propagate(),
        ("clear_all_prompts_in_frame", {"frame_idx": 8, "obj_id": 1}),
        propagate(),
        propagate(19, reverse=True),
    ],
}


def assert_same(ours: tuple[int, Any, np.ndarray], theirs: tuple[int, Any, Any], exact: bool) -> None:
    """Compare frame, names and logits; unless `exact`, a pixel may go to either of two objects that tie."""
    assert ours[0] == theirs[0] and list(ours[1]) == list(theirs[1])
    a, b = ours[2], theirs[2].numpy()
    assert a.shape == b.shape and a.dtype == np.float32
    union = ((a > 0) | (b > 0)).sum()
    assert ((a > 0) & (b > 0)).sum() >= 0.99 * union
    if exact:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-2)
    else:
        assert (np.abs(a - b) > 1e-2).mean() < 1e-3


def frames_of(name: str, found: Any) -> list[tuple[int, Any, Any]]:
    """Return number, names and masks of every frame in what a method returned."""
    if name == "propagate_in_video":
        return list(found)
    if name == "remove_object":
        return [(frame, found[0], masks) for frame, masks in sorted(found[1], key=lambda each: each[0])]
    return [] if found is None else [found]


def follow(predictors: tuple[Any, Any], folder: Path, calls: list[Call], exact: bool = True) -> set[bool]:
    """Make the same calls of both, compare every output; return whether objects were there, and were not."""
    theirs, ours = predictors
    states, seen = (theirs.init_state(str(folder)), ours.init_state(folder)), set()
    for name, arguments in calls:
        found = [getattr(each, name)(state, **arguments) for each, state in zip(predictors, states, strict=True)]
        for upstream, own in zip(*(frames_of(name, each) for each in found), strict=True):
            assert_same(own, upstream, exact)
            seen |= {bool(each.max() > 0) for each in own[2]}
    return seen


@pytest.mark.parametrize(("present", "seen"), [(20.0, {True}), (BOTH, {True, False})])
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_every_frame_is_upstreams(video_pair, clip_folder, scenario: str, present: float, seen: set[bool]) -> None:
    assert follow(video_pair(present), clip_folder, SCENARIOS[scenario]) >= seen


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "without post-processing, non-overlapping": (
        "two objects, corrections, a mask that says absent",
        {
            "fill_hole_area": 0,
            "binarize_mask_from_pts_for_mem_enc": False,
            "stability": False,
            "non_overlap_masks": True,
        },
    ),
    "every second frame is read, two conditioning frames at most": (
        "prompts on several frames, one taken back",
        {
            "figures": {"memory_temporal_stride_for_eval": 2, "max_cond_frames_in_attn": 2},
            "add_all_frames_to_correct_as_cond": True,
        },
    ),
    "as SAM 2.0": (
        "from the middle, both ways, a late object, one less",
        {"figures": {"use_signed_tpos_enc_to_obj_ptrs": False, "only_obj_ptrs_in_the_past_for_eval": False}},
    ),
    "memories around a correction are cleared": (
        "two objects, corrections, a mask that says absent",
        {
            "clear_non_cond_mem_around_input": True,
            "clear_non_cond_mem_for_multi_obj": True,
            "add_all_frames_to_correct_as_cond": True,
        },
    ),
}


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_every_setting_is_upstreams(video_pair, clip_folder, setting: str) -> None:
    scenario, options = SETTINGS[setting]
    follow(video_pair(**options), clip_folder, SCENARIOS[scenario], exact="non_overlap_masks" not in options)
