"""From a prompt on the first frame of each object to masks on every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.video_folders import read_videos
from tvm_ahcq.evaluate.datasets.video_objects import video_objects
from tvm_ahcq.evaluate.metrics.video_tracking import PROMPTS, to_masks, track


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
    import torch

    from tvm_ahcq.models.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from sam2.modeling.sam2_base import SAM2Base

    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, (4, 1, 20, 30)).astype(np.float32)
    expected = SAM2Base._apply_non_overlapping_constraints(None, torch.from_numpy(values)).numpy()[:, 0] > 0
    masks = to_masks(dict(enumerate(values[:, 0], 1)), [1, 2, 3, 4], (20, 30))
    np.testing.assert_array_equal(np.stack([masks[number] for number in (1, 2, 3, 4)]), expected)


class Upstream:
    """``SAM2VideoPredictor`` of a tiny SAM 2 with random weights, with arrays in place of tensors."""

    def __init__(self) -> None:
        import torch

        from tvm_ahcq.models.sam2.sam2_n import build_sam2_n

        torch.manual_seed(0)
        self.model: Any = build_sam2_n(
            image_size=128, embed_dim=16, stages=(1, 1, 3, 1), window_spec=(8, 4, 6, 4), global_att_blocks=(4,),
            prompt_dim=32, memory_dim=16, memory_layers=1,
        )  # fmt: skip
        from sam2.sam2_video_predictor import SAM2VideoPredictor

        self.model.sam_mask_decoder.dynamic_multimask_via_stability = False
        self.model.__class__ = SAM2VideoPredictor
        for option in ("clear_non_cond_mem_around_input", "add_all_frames_to_correct_as_cond", "non_overlap_masks"):
            setattr(self.model, option, False)
        self.model.fill_hole_area = 0
        self.init_state, self.reset_state = self.model.init_state, self.model.reset_state
        self.add_new_mask = self.model.add_new_mask
        self.add_new_points_or_box = self.model.add_new_points_or_box

    def propagate_in_video(
        self, inference_state: Any, start_frame_idx: int | None = None
    ) -> Iterator[tuple[int, Sequence[int], np.ndarray]]:
        """Yield frame, numbers and logits."""
        for frame, numbers, logits in self.model.propagate_in_video(inference_state, start_frame_idx):
            yield frame, numbers, logits.numpy()


def deepest(mask: np.ndarray) -> np.ndarray:
    """``(1, 2)``, x and y of the first pixel of a mask that is furthest from all pixels outside it."""
    rows, columns = np.indices(np.add(mask.shape, 2)) - 1
    outside = ~np.pad(mask, 1)
    y, x = np.nonzero(mask)
    away = (y[:, None] - rows[outside]) ** 2 + (x[:, None] - columns[outside]) ** 2
    best = int(away.min(1).argmax())
    return np.array([[x[best], y[best]]], np.float32)


def show(predictor: Upstream, state: Any, frame: int, number: int, mask: np.ndarray, prompt: str) -> None:
    """Show an object as users of upstream do: masks, clicks with labels, corners of a box."""
    if prompt == "mask":
        predictor.add_new_mask(state, frame, number, mask)
    elif prompt == "click":
        labels = np.array([1], np.int32)
        predictor.add_new_points_or_box(state, frame, number, points=deepest(mask), labels=labels)
    else:
        y, x = np.nonzero(mask)
        box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)
        predictor.add_new_points_or_box(state, frame, number, box=box)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_logits_are_those_of_upstreams_predictor_that_follows_each_object_by_itself(
    tmp_path: Path, add_video: Callable, clip_masks: Callable, prompt: str
) -> None:
    """As ``vos_separate_inference_per_object`` of SAM 2 does."""
    frames, masks = clip_masks(3, 5)
    late = max(masks)
    masks = {number: mask for number, mask in masks.items() if number in (1, 2, late)}
    masks[late][:2] = False
    add_video(tmp_path, "mose", "walk", frames, masks)
    (video,) = read_videos(tmp_path).videos
    predictor = Upstream()
    found = dict(track(predictor, video, video_objects(video), prompt))
    state = predictor.init_state(str(video.folder))
    for number, first in ((1, 0), (2, 0), (late, 2)):
        predictor.reset_state(state)
        show(predictor, state, first, number, video.read_masks(first)[number], prompt)
        alone = {frame: logits[0, 0] for frame, _, logits in predictor.propagate_in_video(state, first)}
        assert alone.keys() == {frame for frame, logits in found.items() if number in logits}
        for frame, logits in alone.items():
            np.testing.assert_allclose(found[frame][number], logits, atol=1e-4)


def test_an_unknown_prompt_is_refused(video_set: Callable, colour_tracker) -> None:
    video = read_videos(video_set("davis")).videos[0]
    with pytest.raises(EvaluationError, match="prompt is 'point'; expected one of mask, click, box"):
        list(track(colour_tracker, video, video_objects(video), "point"))


def test_frames_of_another_size_are_refused(video_set: Callable, colour_tracker) -> None:
    video = read_videos(video_set("davis")).videos[0]
    Image.new("RGB", (64, 64)).save(video.folder / "00003.jpg")
    with pytest.raises(EvaluationError, match=r"walk: .* for frame 3 of 9"):
        list(track(colour_tracker, video, video_objects(video)))
