"""How well a predictor segments generated scenes from one click or one box an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from .metrics import iou
from .scenes import Scene


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
        # the border of the picture counts as outline, so an object that it cuts is clicked inside too
        depth = distance_transform_edt(np.pad(own, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), own.shape)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        masks.append(mask)
        clicks.append([x, y])
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return PromptedObjects(np.stack(masks), np.array(clicks, np.float32), np.array(boxes, np.float32))


@dataclass(frozen=True)
class SceneMasks:
    """What a predictor makes of one scene: ``(B, H, W)`` boolean masks for each way to prompt.

    ``click``: one click, of three masks the one with the best predicted IoU; ``single_click`` and ``box``: one prompt,
    ``multimask_output=False``.
    """

    click: np.ndarray
    single_click: np.ndarray
    box: np.ndarray


def segment_scene(predictor, scene: Scene, objects: PromptedObjects) -> SceneMasks:
    """Segment every object of a scene with a ``tvm_ahcq`` predictor."""
    predictor.set_image(scene.image)
    size = predictor.original_size
    points = predictor.transform.apply_coords(objects.clicks[:, None], size)
    boxes = predictor.transform.apply_boxes(objects.boxes, size)
    labels = np.ones((len(points), 1), np.float32)
    masks, scores, _ = predictor.predict_torch(points, labels)
    single, _, _ = predictor.predict_torch(points, labels, multimask_output=False)
    boxed, _, _ = predictor.predict_torch(None, None, boxes, multimask_output=False)
    return SceneMasks(masks[np.arange(len(masks)), scores.argmax(1)], single[:, 0], boxed[:, 0])


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
