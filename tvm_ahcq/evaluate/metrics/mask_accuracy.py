"""Mean IoU on pictures with masks: each object is prompted from its mask, the answer compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.mask_folder import MaskFolder, MaskPair, load_labels, object_labels
from tvm_ahcq.evaluate.datasets.object_prompts import deepest_pixel, tight_box
from tvm_ahcq.evaluate.datasets.pictures import load_picture

from .iou import iou
from .prompted import batches, by_box, by_click, by_single_click

if TYPE_CHECKING:
    from tvm_ahcq.models.execution import ImagePredictor

Progress = Callable[[str, int, int], None]
"""Is told what is being done, the steps done, and the steps in all."""

PROMPTS = ("click", "box")
"""Ways to prompt; a click is scored twice, see :class:`MaskAccuracy`."""


@dataclass(frozen=True)
class ObjectScore:
    """IoU of one object, by the way it was prompted; None where it was not.

    Attributes
    ----------
    image : str
        Name of the picture's file.
    label : int
        Value of the object's pixels in the mask file.
    click, single_click, box : float or None
        See :class:`MaskAccuracy`.
    """

    image: str
    label: int
    click: float | None = None
    single_click: float | None = None
    box: float | None = None


@dataclass(frozen=True)
class MaskAccuracy:
    """Mean IoU over all objects of all pictures.

    Attributes
    ----------
    click : float or None
        From one click on the pixel deepest inside the object, of three masks the one with the best predicted IoU.
    single_click : float or None
        From the same click, with ``multimask_output=False``.
    box : float or None
        From a tight box, with ``multimask_output=False``.
    objects, images, empty : int
        Objects; pictures; and how many of these have no object.
    scores : tuple of ObjectScore
        Each object by itself, in the order of the pictures.
    """

    click: float | None
    single_click: float | None
    box: float | None
    objects: int
    images: int
    empty: int
    scores: tuple[ObjectScore, ...]

    def figures(self) -> dict[str, float]:
        """The means by the name that people read."""
        named = {"click (best of 3)": self.click, "click (1 mask)": self.single_click, "box": self.box}
        return {name: value for name, value in named.items() if value is not None}

    def summary(self) -> str:
        """Return the numbers of pictures and objects, for people."""
        return f"{self.objects} objects" + (f"; {self.empty} of {self.images} pictures have none" if self.empty else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {key: value for key, value in vars(self).items() if key != "scores"}
        return {**values, "scores": [dict(vars(score)) for score in self.scores]}


def mask_accuracy(
    predictor: ImagePredictor,
    folder: MaskFolder,
    prompts: Iterable[str] = PROMPTS,
    void: int | None = None,
    progress: Progress | None = None,
) -> MaskAccuracy:
    """Prompt every object of every picture, and compare with its mask.

    Parameters
    ----------
    predictor : ImagePredictor
        Of a float, a fake-quantized or a compiled model.
    folder : MaskFolder
        From :func:`.mask_folder.read_mask_folder`.
    prompts : iterable of str
        "click", "box", or both.
    void : int, optional
        Label of pixels that belong to nobody (255 in Pascal VOC): no object, and not compared.
    progress : callable, optional
        Is told ("pictures", done, all).

    Returns
    -------
    MaskAccuracy

    Raises
    ------
    EvaluationError
        A file cannot be read, a prompt is unknown, or there is no object in any mask.
    """
    wanted = tuple(prompts)
    if not wanted or not set(wanted) <= set(PROMPTS):
        raise EvaluationError(f"prompts are {wanted}; expected some of {', '.join(PROMPTS)}")
    scores, empty = [], 0
    for done, pair in enumerate(folder.pairs):
        if progress is not None:
            progress("pictures", done, len(folder.pairs))
        found = _picture(predictor, pair, wanted, void)
        empty += not found
        scores += found
    if progress is not None:
        progress("pictures", len(folder.pairs), len(folder.pairs))
    if not scores:
        other = "0 (background)" if void is None else f"0 (background) and {void} (void)"
        raise EvaluationError(f"no object in any of {len(folder.pairs)} masks; expected pixels other than {other}")
    return _means(scores, len(folder.pairs), empty)


def _picture(
    predictor: ImagePredictor, pair: MaskPair, prompts: tuple[str, ...], void: int | None
) -> list[ObjectScore]:
    """Scores of the objects in one picture; it is not even encoded if there are none."""
    labels = load_labels(pair.mask)
    objects = object_labels(labels, void)
    if not objects:
        return []
    predictor.set_image(load_picture(pair.image, labels.shape))
    counted = None if void is None else labels != void
    scores = []
    for part in batches(len(objects), labels.shape):
        truth = np.stack([labels == label for label in objects[part]])
        answers: dict[str, np.ndarray] = {}
        if "click" in prompts:
            clicks = np.array([deepest_pixel(mask) for mask in truth])
            answers["click"] = by_click(predictor, clicks)
            answers["single_click"] = by_single_click(predictor, clicks)
        if "box" in prompts:
            answers["box"], _ = by_box(predictor, np.array([tight_box(mask) for mask in truth]))
        for index, label in enumerate(objects[part]):
            ious = {way: _iou(masks[index], truth[index], counted) for way, masks in answers.items()}
            scores.append(ObjectScore(pair.image.name, label, **ious))
    return scores


def _iou(found: np.ndarray, truth: np.ndarray, counted: np.ndarray | None) -> float:
    return iou(found if counted is None else found & counted, truth)


def _means(scores: list[ObjectScore], images: int, empty: int) -> MaskAccuracy:
    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    means = {way: mean([getattr(score, way) for score in scores]) for way in ("click", "single_click", "box")}
    return MaskAccuracy(**means, objects=len(scores), images=images, empty=empty, scores=tuple(scores))
