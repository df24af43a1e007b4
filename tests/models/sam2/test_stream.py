"""Streams against the predictor for whole videos, and their bounds."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tvm_ahcq.errors import ImageError, PromptError
from tvm_ahcq.models.sam2.frame_features import KEPT_FRAMES, EncodedFrame
from tvm_ahcq.models.sam2.memory_bank import Output, reach
from tvm_ahcq.models.sam2.stream import KEPT_CONDITIONING


@pytest.fixture
def predictor(video_pair: Any) -> Any:
    return video_pair()[1]


def whole(predictor: Any, clip: list[np.ndarray], *prompts: dict[str, Any]) -> dict[int, np.ndarray]:
    """Logits ``(objects, H, W)`` of a video by frame."""
    state = predictor.init_state(clip)
    for prompt in prompts:
        predictor.add_new_points_or_box(state, **prompt)
    return {frame: masks[:, 0] for frame, _, masks in predictor.propagate_in_video(state)}


def test_a_stream_finds_what_the_video_gives(predictor: Any, clip: list[np.ndarray]) -> None:
    prompts = {"frame_idx": 0, "obj_id": 1, "box": [20, 20, 70, 60]}, {
        "frame_idx": 0, "obj_id": 2, "points": [[90, 60]], "labels": [1],
    }  # fmt: skip
    expected = whole(predictor, clip, *prompts)
    stream = predictor.stream(return_logits=True)
    stream.add(clip[0], box=[20, 20, 70, 60])
    stream.add(clip[0], points=[[90, 60]], labels=[1], obj_id=2)
    for number, frame in enumerate(clip):
        found = stream.step(frame)
        assert list(found) == [1, 2]
        np.testing.assert_allclose(np.stack(list(found.values())), expected[number], rtol=0, atol=1e-3)


def test_the_frame_with_the_prompt_need_not_be_shown_again(predictor: Any, clip: list[np.ndarray]) -> None:
    found = []
    for frames in (clip[:6], clip[1:6]):
        stream = predictor.stream()
        stream.add(clip[0], box=[20, 20, 70, 60])
        for frame in frames:
            mask = stream.step(frame)[1]
        found.append(mask)
    assert found[0].dtype == bool and found[0].shape == (90, 120)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_buffer_of_the_camera_may_be_used_again(predictor: Any, clip: list[np.ndarray]) -> None:
    buffer, found = np.empty_like(clip[0]), []
    for reuse in (False, True):
        stream = predictor.stream(return_logits=True)
        for number, frame in enumerate(clip[:5]):
            buffer[:] = frame
            shown = buffer if reuse else frame
            if number == 0:
                stream.add(shown, box=[20, 20, 70, 60])
            masks = stream.step(shown)
        found.append(masks[1])
    np.testing.assert_array_equal(*found)


def test_points_of_a_frame_add_up_and_a_box_starts_again(predictor: Any, clip: list[np.ndarray]) -> None:
    stream = predictor.stream(return_logits=True)
    stream.add(clip[0], points=[[10, 10]], labels=[1])
    stream.add(clip[0], box=[20, 20, 70, 60])
    found = stream.add(clip[0], points=[[60, 40]], labels=[0])[1]
    state = predictor.init_state(clip)
    predictor.add_new_points_or_box(state, 0, 1, points=[[10, 10]], labels=[1])
    predictor.add_new_points_or_box(state, 0, 1, box=[20, 20, 70, 60])
    _, _, expected = predictor.add_new_points_or_box(state, 0, 1, [[60, 40]], [0], clear_old_points=False)
    np.testing.assert_array_equal(found, expected[0, 0])


def test_a_correction_of_the_last_frame_is_kept_and_read_by_the_next(predictor: Any, clip: list[np.ndarray]) -> None:
    def run(correct: bool) -> tuple[np.ndarray, np.ndarray]:
        stream = predictor.stream(return_logits=True)
        stream.add(clip[0], box=[20, 20, 70, 60])
        for frame in clip[:4]:
            shown = stream.step(frame)[1]
        if correct:
            corrected = stream.add(clip[3], points=[[60, 40], [20, 20]], labels=[0, 1])[1]
            np.testing.assert_array_equal(stream.step(clip[3])[1], corrected)
            shown = corrected
        return shown, stream.step(clip[4])[1]

    plain, corrected = run(False), run(True)
    assert np.abs(plain[0] - corrected[0]).max() > 0.1 and np.abs(plain[1] - corrected[1]).max() > 0


def test_objects_come_and_go(predictor: Any, clip: list[np.ndarray]) -> None:
    stream = predictor.stream()
    assert stream.step(clip[0]) == {} and stream.obj_ids == []
    stream.add(clip[1], mask=np.eye(90, 120, dtype=bool), obj_id="cat")
    assert list(stream.step(clip[1])) == ["cat"]
    stream.add(clip[2], points=[[50, 40]], labels=[1], obj_id="dog")
    assert list(stream.step(clip[2])) == ["cat", "dog"]
    stream.remove("cat")
    assert list(stream.step(clip[3])) == ["dog"]
    stream.reset()
    assert stream.step(clip[4][:40]) == {}


def test_memory_is_bounded_for_ever(predictor: Any, clip: list[np.ndarray]) -> None:
    stream = predictor.stream()
    rng, alive = np.random.default_rng(0), {}
    for number in range(120):
        frame = np.roll(clip[number % 20], int(rng.integers(30)), 0)
        if number % 5 == 0:
            stream.add(frame, points=[[60, 40]], labels=[1])
        stream.step(frame)
        if number in (59, 119):
            gc.collect()
            kinds = Counter(type(each) for each in gc.get_objects())
            alive[number] = kinds[Output], kinds[EncodedFrame]
    known, model = stream._state.objects[1], predictor.model
    assert len(known.bank.conditioning) == KEPT_CONDITIONING
    assert len(known.bank.others) <= max(reach(model), model.max_pointers)
    assert sum(output.memory is not None for output in known.bank.others.values()) <= reach(model)
    most = KEPT_CONDITIONING + max(reach(model), model.max_pointers) + 1
    assert len(known.tracked) <= most and len(known.points) <= most
    assert alive[59] == alive[119] and alive[119][1] <= KEPT_FRAMES


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "there is no prompt"),
        ({"points": [[121, 4]], "labels": [1]}, "outside"),
        ({"box": [1, 1, 5, 5], "mask": np.ones((90, 120))}, "a mask stands alone"),
        ({"mask": np.ones(3)}, "mask has shape"),
    ],
)
def test_bad_prompts_are_explained_and_change_nothing(
    predictor: Any, clip: list[np.ndarray], prompt: dict[str, Any], message: str
) -> None:
    stream = predictor.stream()
    with pytest.raises(PromptError, match=message):
        stream.add(clip[0], **prompt)
    assert stream.step(clip[0]) == {}


def test_bad_frames_are_explained(predictor: Any, clip: list[np.ndarray]) -> None:
    stream = predictor.stream()
    with pytest.raises(PromptError, match="none was added yet"):
        stream.remove(1)
    stream.add(clip[0], box=[20, 20, 70, 60])
    with pytest.raises(ImageError, match=r"120 x 80 pixels .* 120 x 90"):
        stream.step(clip[1][:80])
    with pytest.raises(ImageError, match="uint8"):
        stream.step(clip[1].astype(float))
    with pytest.raises(PromptError, match="no object 2"):
        stream.remove(2)
    assert list(stream.step(clip[1])) == [1]
