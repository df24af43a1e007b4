"""Accuracy of ``sam2_n`` in float, through the predictor and the tracking step of the package ``sam2``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import track

from tvm_ahcq.clips import Clip
from tvm_ahcq.clips import generate as generate_clip
from tvm_ahcq.evaluate.datasets.object_prompts import deepest_pixel
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.evaluate.metrics.scene_accuracy import SceneAccuracy, SceneMasks, mean_iou, prompted_objects
from tvm_ahcq.models.sam2.timing import fit_upstream_predictor
from tvm_ahcq.scenes import generate

from .tracking import normalise

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


def picture_accuracy(model: SAM2Base, count: int) -> SceneAccuracy:
    """Accuracy on the unseen scenes ``0 .. count - 1``."""
    predictor = fit_upstream_predictor(model)

    def pairs() -> Iterator[tuple[SceneMasks, np.ndarray]]:
        for number in track(range(count), "scenes"):
            scene = generate(number)
            objects = prompted_objects(scene)
            predictor.set_image(scene.image)
            clicks = {"point_coords": objects.clicks[:, None], "point_labels": np.ones((len(objects.clicks), 1))}
            three, quality = _predict(predictor, multimask_output=True, **clicks)
            single = _predict(predictor, multimask_output=False, **clicks)[0][:, 0]
            box = _predict(predictor, multimask_output=False, box=objects.boxes)[0][:, 0]
            yield SceneMasks(three[np.arange(len(three)), quality.argmax(1)], single, box), objects.masks

    return mean_iou(pairs())


def _predict(predictor: Any, **prompts: Any) -> tuple[np.ndarray, np.ndarray]:
    """Masks ``(B, C, H, W)`` and scores ``(B, C)``; upstream leaves the first axis out for one object."""
    masks, scores, _ = predictor.predict(**prompts)
    return (masks > 0, scores) if masks.ndim == 4 else (masks[None] > 0, scores[None])


@torch.no_grad()
def clip_accuracy(model: SAM2Base, count: int, prompt: str) -> tuple[float, float, int]:
    """Mean IoU of tracking on the unseen clips ``0 .. count - 1``, over the frames after the first.

    An object that does not show is right only where the mask is empty.

    Parameters
    ----------
    model : SAM2Base
        In evaluation mode.
    count : int
        Number of clips.
    prompt : str
        ``"mask"`` or ``"click"`` on the first frame.

    Returns
    -------
    tracked, copied : float
        Mean over objects; of tracking, and of the first frame's mask on every frame.
    objects : int
        Number of objects.
    """
    tracked, copied = [], []
    for number in track(range(count), f"clips by {prompt}"):
        clip = generate_clip(number)
        objects = clip.objects()
        truth = np.stack([clip.masks(index) for index in objects], 1)
        found = follow(model, clip, truth[0], prompt)
        for i in range(len(objects)):
            tracked.append(np.mean([iou(*pair) for pair in zip(found[1:, i], truth[1:, i], strict=True)]))
            copied.append(np.mean([iou(truth[0, i], mask) for mask in truth[1:, i]]))
    return float(np.mean(tracked)), float(np.mean(copied)), len(tracked)


def follow(model: SAM2Base, clip: Clip, masks: np.ndarray, prompt: str) -> np.ndarray:
    """Masks ``(T, B, S, S)`` of the objects that have `masks` ``(B, S, S)`` on the first frame."""
    result = []
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    points = None
    if prompt == "click":
        xy = torch.tensor([deepest_pixel(mask) for mask in masks], dtype=torch.float32)[:, None]
        points = {"point_coords": xy, "point_labels": torch.ones(len(masks), 1, dtype=torch.int32)}
    for time, frame in enumerate(clip.frames):
        backbone = model.forward_image(normalise(frame[None]))
        _, features, positions, sizes = model._prepare_backbone_features(backbone)
        first = time == 0
        output = model.track_step(
            frame_idx=time,
            is_init_cond_frame=first,
            current_vision_feats=[feature.expand(-1, len(masks), -1) for feature in features],
            current_vision_pos_embeds=[position.expand(-1, len(masks), -1) for position in positions],
            feat_sizes=sizes,
            point_inputs=points if first else None,
            mask_inputs=torch.from_numpy(masks[:, None]).float() if first and prompt == "mask" else None,
            output_dict=outputs,
            num_frames=len(clip.frames),
        )
        outputs["cond_frame_outputs" if first else "non_cond_frame_outputs"][time] = output
        result.append((output["pred_masks_high_res"][:, 0] > 0).numpy())
    return np.stack(result)
