"""The video predictor against upstream's ``SAM2VideoPredictor`` on the same weights, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import ImageError, PromptError
from tvm_ahcq.models.registry import find_family

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


@pytest.fixture
def predictor(video_pair: Any) -> Any:
    """Ours alone."""
    return video_pair()[1]


def track_all(predictor: Any, state: Any, **how: Any) -> dict[int, np.ndarray]:
    """Logits ``(objects, 1, H, W)`` by frame."""
    return {frame: masks for frame, _, masks in predictor.propagate_in_video(state, **how)}


def test_a_memory_that_was_dropped_is_encoded_again(predictor: Any, clip: list[np.ndarray]) -> None:
    found = []
    for kept in (32, 7):
        state = predictor.init_state(clip)
        state.limits = state.limits._replace(memories=kept)
        predictor.add_new_points_or_box(state, 0, 1, box=[20, 20, 70, 60])
        track_all(predictor, state)
        bank = state.objects[1].bank
        assert sum(output.memory is not None for output in bank.others.values()) == min(kept, 19)
        assert len(bank.others) == 19
        found.append(predictor.add_new_points_or_box(state, 9, 1, points=[[60, 40]], labels=[1])[2])
    # from masks that are float16 by then
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=0.02)


def test_what_is_kept_of_an_object_is_bounded(predictor: Any, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    state.limits = state.limits._replace(outputs=9, memories=7)
    predictor.add_new_points_or_box(state, 0, 1, box=[20, 20, 70, 60])
    track_all(predictor, state)
    outputs = state.objects[1].bank.others
    assert list(outputs) == list(range(11, 20))
    assert [output.memory is not None for output in outputs.values()] == [False] * 2 + [True] * 7
    assert [output.mask.dtype for output in outputs.values()] == ["float16"] * 2 + ["float32"] * 7
    # a correction of a frame of which nothing is left
    frame, _, masks = predictor.add_new_points_or_box(state, 7, 1, points=[[60, 40]], labels=[1])
    assert frame == 7 and np.isfinite(masks).all()


def test_a_correction_of_the_first_frame_stays(predictor: Any, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, box=[20, 20, 70, 60])
    before = track_all(predictor, state)
    _, _, corrected = predictor.add_new_points_or_box(state, 0, 1, points=[[100, 20]], labels=[0])
    after = track_all(predictor, state)
    assert np.abs(before[0] - corrected).max() > 0.1
    np.testing.assert_array_equal(after[0], corrected)


def test_around_a_correction_memories_are_cleared_and_its_own_stays(video_pair: Any, clip: list[np.ndarray]) -> None:
    _, predictor = video_pair(clear_non_cond_mem_around_input=True)
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, box=[20, 20, 70, 60])
    track_all(predictor, state)
    predictor.add_new_points_or_box(state, 10, 1, points=[[60, 40]], labels=[1])
    for _ in predictor.propagate_in_video(state, 19):
        break
    kept = state.objects[1].bank.others
    assert set(kept) == {1, 2, 10, 18, 19}


def test_the_family_tracks_with_it_and_takes_its_options(predictor: Any) -> None:
    make = find_family("sam2").video_predictor
    assert make is not None
    made = make(predictor.session, stability=False, fill_hole_area=0)
    assert isinstance(made, type(predictor)) and not made.options.stability and made.options.fill_hole_area == 0
    with pytest.raises(TypeError, match="no_such_option"):
        make(predictor.session, no_such_option=1)


def test_one_frame_is_a_video(predictor: Any, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip[:1])
    _, _, shown = predictor.add_new_points_or_box(state, 0, "cat", points=[[50, 40]], labels=[1])
    found = track_all(predictor, state)
    assert list(found) == [0] and track_all(predictor, state, reverse=True) == {}
    np.testing.assert_array_equal(found[0], shown)
    _, names, corrected = predictor.add_new_points_or_box(state, 0, "cat", points=[[20, 20]], labels=[0])
    assert names == ["cat"] and np.isfinite(corrected).all()


def test_arrays_and_files_of_the_same_pixels_give_the_same_masks(
    predictor: Any, clip: list[np.ndarray], tmp_path: Path
) -> None:
    for number, frame in enumerate(clip[:4]):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    found = []
    for video in (clip[:4], tmp_path, iter(clip[:4])):
        state = predictor.init_state(video)
        predictor.add_new_points_or_box(state, 1, 1, points=[[0.5, 0.5]], labels=[1], normalize_coords=False)
        found.append(track_all(predictor, state))
    for other in found[1:]:
        np.testing.assert_array_equal(np.stack(list(found[0].values())), np.stack(list(other.values())))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("add_new_points_or_box", {"frame_idx": 20, "points": [[1, 1]], "labels": [1]}, "frame 20 is not in the video"),
        ("add_new_points_or_box", {"frame_idx": -1, "points": [[1, 1]], "labels": [1]}, "frame -1 is not in the video"),
        ("add_new_points_or_box", {"frame_idx": 0.5, "points": [[1, 1]], "labels": [1]}, "expected a number from 0"),
        ("add_new_points_or_box", {"frame_idx": 0}, "there is no prompt"),
        ("add_new_points_or_box", {"frame_idx": 0, "points": [[1, 1]]}, "point_labels must be supplied"),
        ("add_new_points_or_box", {"frame_idx": 0, "points": [[1, 1]], "labels": [1, 1]}, "one for each point"),
        ("add_new_points_or_box", {"frame_idx": 0, "points": [[121, 1]], "labels": [1]}, "outside"),
        ("add_new_points_or_box", {"frame_idx": 0, "points": [[1, 1]], "labels": [9]}, "label 9 is not known"),
        ("add_new_points_or_box", {"frame_idx": 0, "points": [[[1, 1]]] * 2, "labels": [[1]] * 2}, "for 2 objects"),
        ("add_new_points_or_box", {"frame_idx": 0, "box": [9, 9, 5, 5]}, "wrong order"),
        ("add_new_points_or_box", {"frame_idx": 0, "box": [1, 1, 5, 5], "clear_old_points": False}, "comes before"),
        ("add_new_mask", {"frame_idx": 0, "mask": np.zeros((2, 3, 4))}, "mask has shape"),
        ("add_new_mask", {"frame_idx": 20, "mask": np.zeros((2, 3))}, "frame 20 is not"),
        ("clear_all_prompts_in_frame", {"frame_idx": 0}, "no object 'dog'; .*'cat'"),
        ("remove_object", {"strict": True}, "no object 'dog'; .*'cat'"),
    ],
)
def test_bad_calls_are_explained_and_change_nothing(
    predictor: Any, clip: list[np.ndarray], method: str, arguments: dict[str, Any], message: str
) -> None:
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, "cat", points=[[50, 40]], labels=[1])
    with pytest.raises(PromptError, match=message):
        getattr(predictor, method)(state, obj_id="dog", **arguments)
    assert state.obj_ids == ["cat"]


def test_tracking_without_prompts_is_refused_at_once(predictor: Any, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    with pytest.raises(PromptError, match="there are no prompts"):
        predictor.propagate_in_video(state)
    predictor.add_new_points_or_box(state, 3, "cat", points=[[50, 40]], labels=[1])
    predictor.clear_all_prompts_in_frame(state, 3, "cat")
    with pytest.raises(RuntimeError, match="object 'cat' has no prompt"):
        predictor.propagate_in_video(state)
    predictor.add_new_points_or_box(state, 3, "cat", points=[[50, 40]], labels=[1])
    for arguments, message in (
        ({"start_frame_idx": 20}, "frame 20 is not"),
        ({"max_frame_num_to_track": -1}, "expected 0 or more"),
    ):
        with pytest.raises(PromptError, match=message):
            predictor.propagate_in_video(state, **arguments)


def test_frames_before_a_bad_one_stay_tracked(predictor: Any, clip: list[np.ndarray]) -> None:
    state = predictor.init_state([*clip[:5], clip[5][:50]])
    predictor.add_new_points_or_box(state, 0, 1, points=[[50, 40]], labels=[1])
    found = []
    with pytest.raises(ImageError, match="frame 5 has"):
        for frame, _, _ in predictor.propagate_in_video(state):
            found.append(frame)
    assert found == [0, 1, 2, 3, 4]
    assert list(track_all(predictor, state, start_frame_idx=3, max_frame_num_to_track=1)) == [3, 4]
