"""Accuracy of a predictor on generated scenes, prompted by one click or one box an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.evaluate.datasets.object_prompts import deepest_pixel, tight_box
from tvm_ahcq.scenes import Scene

from .iou import iou
from .prompted import by_box, by_click, by_single_click


@dataclass(frozen=True)
class PromptedObjects:
    """The annotated objects of one scene with the prompts that stand for them.

    Attributes
    ----------
    masks : numpy.ndarray
        ``(B, H, W)`` bool.
    clicks : numpy.ndarray
        ``(B, 2)`` x, y: the pixel of each object that lies deepest inside it.
    boxes : numpy.ndarray
        ``(B, 4)`` x0, y0, x1, y1, around the masks.
    """

    masks: np.ndarray
    clicks: np.ndarray
    boxes: np.ndarray


def prompted_objects(scene: Scene) -> PromptedObjects:
    """Every annotated object of a scene that has pixels of its own (outside its parts)."""
    masks, clicks, boxes = [], [], []
    for index in scene.objects():
        own = scene.labels == index
        if not own.any():
            continue
        mask = scene.mask(index)
        masks.append(mask)
        clicks.append(deepest_pixel(own))
        boxes.append(tight_box(mask))
    return PromptedObjects(np.stack(masks), np.array(clicks, np.float32), np.array(boxes, np.float32))


@dataclass(frozen=True)
class SceneMasks:
    """Masks that a predictor returns for one scene: ``(B, H, W)`` bool for each way to prompt.

    ``click``: one click, of three masks the one with the best predicted IoU; ``single_click`` and ``box``: one prompt,
    ``multimask_output=False``.
    """

    click: np.ndarray
    single_click: np.ndarray
    box: np.ndarray


def segment_scene(predictor, scene: Scene, objects: PromptedObjects) -> SceneMasks:
    """Segment every object of a scene with a ``tvm_ahcq`` predictor."""
    predictor.set_image(scene.image)
    return SceneMasks(
        by_click(predictor, objects.clicks),
        by_single_click(predictor, objects.clicks),
        by_box(predictor, objects.boxes)[0],
    )


@dataclass(frozen=True)
class SceneAccuracy:
    """Mean IoU over objects, for each way to prompt (see :class:`SceneMasks`), and their number."""

    click: float
    single_click: float
    box: float
    objects: int


def mean_iou(pairs: Iterable[tuple[SceneMasks, SceneMasks | np.ndarray]]) -> SceneAccuracy:
    """Mean IoU of masks with other masks of the same objects, or with the truth ``(B, H, W)``."""
    rows: list[tuple[float, ...]] = []
    for found, wanted in pairs:
        for index in range(len(found.box)):
            target = [w[index] for w in _ways(wanted)]
            rows.append(tuple(iou(mask[index], other) for mask, other in zip(_ways(found), target, strict=True)))
    click, single_click, box = np.mean(rows, axis=0)
    return SceneAccuracy(float(click), float(single_click), float(box), len(rows))


def _ways(masks: SceneMasks | np.ndarray) -> tuple[np.ndarray, ...]:
    return (masks.click, masks.single_click, masks.box) if isinstance(masks, SceneMasks) else (masks,) * 3


def scene_accuracy(predictor, scenes: Iterable[Scene]) -> SceneAccuracy:
    """Accuracy of a predictor on `scenes`, against the truth."""

    def pairs() -> Iterator[tuple[SceneMasks, np.ndarray]]:
        for scene in scenes:
            objects = prompted_objects(scene)
            yield segment_scene(predictor, scene, objects), objects.masks

    return mean_iou(pairs())
