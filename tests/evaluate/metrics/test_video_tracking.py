"""From first masks to masks on every frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.video_folders import read_videos
from tvm_ahcq.evaluate.datasets.video_objects import video_objects
from tvm_ahcq.evaluate.metrics.video_tracking import to_masks, track


def test_every_object_is_followed_from_its_first_mask_on(
    tmp_path: Path, add_video: Callable, clip_masks: Callable, colour_tracker
) -> None:
    frames, masks = clip_masks(3)
    assert len(masks) >= 2
    late = max(masks)
    masks[late][:4] = False
    add_video(tmp_path, "mose", "walk", frames, masks)
    (video,) = read_videos(tmp_path).videos
    objects = video_objects(video)
    seen = dict(track(colour_tracker, video, objects))
    assert list(seen) == list(range(len(frames)))
    assert all((late in seen[frame]) == (frame >= 4) for frame in seen)
    assert colour_tracker.opened == ["walk", "walk"] and colour_tracker.frames == 9 + 5
    np.testing.assert_array_equal(seen[4][late] > 0, video.read_masks(4)[late])
    for number in set(masks) - {late}:
        np.testing.assert_array_equal(seen[0][number] > 0, video.read_masks(0)[number])


def test_objects_of_one_frame_are_followed_together(video_set: Callable, colour_tracker) -> None:
    video = read_videos(video_set("davis")).videos[0]
    objects = video_objects(video)
    assert len(objects) > 1
    assert all(set(logits) == {each.number for each in objects} for _, logits in track(colour_tracker, video, objects))
    assert colour_tracker.opened == ["walk"]


def test_a_pixel_belongs_to_the_highest_logit_above_the_threshold_and_of_equals_to_the_lowest_number() -> None:
    logits = {7: np.array([[3.0, -1, 2, 0.4]]), 2: np.array([[1.0, -2, 2, 0.2]])}
    masks = to_masks(logits, [2, 5, 7], (1, 4))
    assert {number: mask.astype(int).tolist() for number, mask in masks.items()} == {
        2: [[0, 0, 1, 0]],
        5: [[0, 0, 0, 0]],
        7: [[1, 0, 0, 1]],
    }
    masks = to_masks(logits, [2, 7], (1, 4), threshold=0.5, overlap=True)
    assert {number: mask.astype(int).tolist() for number, mask in masks.items()} == {
        2: [[1, 0, 1, 0]],
        7: [[1, 0, 1, 0]],
    }


def test_masks_are_those_of_upstreams_non_overlapping_constraints() -> None:
    torch = pytest.importorskip("torch")
    upstream = pytest.importorskip("sam2.modeling.sam2_base").SAM2Base._apply_non_overlapping_constraints
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, (4, 1, 20, 30)).astype(np.float32)
    expected = upstream(None, torch.from_numpy(values)).numpy()[:, 0] > 0
    masks = to_masks(dict(enumerate(values[:, 0], 1)), [1, 2, 3, 4], (20, 30))
    np.testing.assert_array_equal(np.stack([masks[number] for number in (1, 2, 3, 4)]), expected)


def test_frames_of_another_size_are_refused(video_set: Callable, colour_tracker) -> None:
    video = read_videos(video_set("davis")).videos[0]
    Image.new("RGB", (64, 64)).save(video.folder / "00003.jpg")
    with pytest.raises(EvaluationError, match=r"walk: .* for frame 3 of 9"):
        list(track(colour_tracker, video, video_objects(video)))
