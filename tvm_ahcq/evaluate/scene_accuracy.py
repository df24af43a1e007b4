"""How well a predictor segments generated scenes from one click or one box an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from .metrics import iou
from .scenes import Scene


@dataclass(frozen=True)
class PromptedObject:
    """One object of a scene with the prompts that stand for it.

    Attributes
    ----------
    mask : numpy.ndarray
        ``(H, W)`` bool.
    click : numpy.ndarray
        ``(2,)`` x, y: the pixel of the object that lies deepest inside it.
    box : numpy.ndarray
        ``(4,)`` x0, y0, x1, y1, around the mask.
    """

    mask: np.ndarray
    click: np.ndarray
    box: np.ndarray


def prompted_objects(scene: Scene) -> Iterator[PromptedObject]:
    """Every annotated object of a scene that has pixels of its own (outside its parts)."""
    for index in scene.objects():
        own = scene.labels == index
        if own.any():
            mask = scene.mask(index)
            # the border of the picture counts as outline, so a cut-off object is clicked inside too
            depth = distance_transform_edt(np.pad(own, 1))[1:-1, 1:-1]
            y, x = np.unravel_index(int(depth.argmax()), own.shape)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
            yield PromptedObject(mask, np.array([x, y], np.float32), box)


@dataclass(frozen=True)
class SceneAccuracy:
    """Mean IoU over objects.

    Attributes
    ----------
    click : float
        One click, of three masks the one with the best predicted IoU.
    single_click : float
        One click, ``multimask_output=False``.
    box : float
        One box, ``multimask_output=False``.
    objects : int
        Number of objects.
    """

    click: float
    single_click: float
    box: float
    objects: int


def scene_accuracy(predictor, scenes: Iterable[Scene]) -> SceneAccuracy:
    """Accuracy of a predictor (``SamPredictor`` or upstream's) on `scenes`.

    Parameters
    ----------
    predictor
        With ``set_image`` and ``predict`` of ``segment_anything.SamPredictor``.
    scenes : iterable of Scene
        Unseen scenes.
    """
    rows = []
    for scene in scenes:
        predictor.set_image(scene.image)
        for target in prompted_objects(scene):
            point = {"point_coords": target.click[None], "point_labels": np.array([1])}
            masks, scores, _ = predictor.predict(**point)
            single, _, _ = predictor.predict(**point, multimask_output=False)
            boxed, _, _ = predictor.predict(box=target.box, multimask_output=False)
            found = masks[int(np.argmax(scores))], single[0], boxed[0]
            rows.append([iou(mask, target.mask) for mask in found])
    click, single_click, box = np.mean(rows, axis=0)
    return SceneAccuracy(float(click), float(single_click), float(box), len(rows))
