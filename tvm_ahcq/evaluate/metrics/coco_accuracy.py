"""COCO instance mAP of a model that is prompted by boxes: those annotated, or those that a detector found."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ahcq.evaluate.datasets.coco import Box, CocoImage, CocoObject, CocoSet, Detection, Id
from tvm_ahcq.evaluate.datasets.coco_masks import Rle, area, encode, pycocotools, rle_iou
from tvm_ahcq.evaluate.datasets.pictures import load_picture

from .prompted import batches, by_box

if TYPE_CHECKING:
    from tvm_ahcq.models.execution import ImagePredictor

_STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""The first figures of COCOeval's summary, in its order."""

_ALL_AREAS, _MOST_DETECTIONS = 0, -1
"""Indices into COCOeval's precision array."""


@dataclass(frozen=True)
class CocoAccuracy:
    """COCO's figures for instance masks; None where no annotated object is of that kind.

    Attributes
    ----------
    ap, ap50, ap75 : float or None
        Average precision over IoU 0.50:0.05:0.95, at 0.50, and at 0.75.
    ap_small, ap_medium, ap_large : float or None
        As `ap`, for areas up to 32 x 32, up to 96 x 96, and above, in pixels.
    miou : float or None
        Mean IoU of the objects with the masks from their own boxes; None with a detector's boxes.
    prompts, images : int
        Boxes that were given, and pictures.
    categories : dict of str to float
        `ap` by category, where it occurs.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    miou: float | None
    prompts: int
    images: int
    categories: dict[str, float]

    def figures(self) -> dict[str, float | None]:
        """Return the columns of the table, by title."""
        named = {
            "AP": self.ap,
            "AP50": self.ap50,
            "AP75": self.ap75,
            "AP_S": self.ap_small,
            "AP_M": self.ap_medium,
            "AP_L": self.ap_large,
        }
        return named if self.miou is None else {**named, "mIoU": self.miou}

    def summary(self) -> str:
        """Return the numbers of pictures and objects, for people."""
        return f"{self.prompts} boxes, {len(self.categories)} categories"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "categories": dict(self.categories)}


@dataclass(frozen=True)
class InstanceMask:
    """A predicted mask: numbers of its picture and category, compressed run lengths, and its score."""

    image: Id
    category: Id
    mask: Rle
    score: float


def coco_accuracy(
    predictor: ImagePredictor,
    coco: CocoSet,
    detections: Sequence[Detection] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CocoAccuracy:
    """Prompt with boxes, and score the masks with pycocotools.

    Parameters
    ----------
    predictor : ImagePredictor
        Of a float, a fake-quantized or a compiled model.
    coco : CocoSet
        From :func:`.coco.read_coco`.
    detections : sequence of Detection, optional
        Boxes to prompt with, each with its category and score; from :func:`.coco.read_detections`. Without them, the
        annotated boxes are used, crowds left out, and a mask's score is its predicted IoU.
    progress : callable, optional
        Is told ("pictures", done, all).

    Returns
    -------
    CocoAccuracy
        A box gives one mask (``multimask_output=False``).

    Raises
    ------
    EvaluationError
        A picture cannot be read, or pycocotools is not installed.
    """
    prompts = [each for each in coco.objects if not each.crowd] if detections is None else detections
    found: list[InstanceMask] = []
    ious: list[float] = []
    for image, boxed in _by_image(coco.images, prompts, progress):
        masks = segment_boxes(predictor, image, [each.box for each in boxed])
        for prompt, (mask, quality) in zip(boxed, masks, strict=True):
            annotated = isinstance(prompt, CocoObject)
            found.append(InstanceMask(image.id, prompt.category, mask, quality if annotated else prompt.score))
            if annotated:
                ious.append(rle_iou(mask, prompt.mask))
    stats, categories = average_precision(coco, found)
    return CocoAccuracy(
        **stats,
        miou=float(np.mean(ious)) if ious else None,
        prompts=len(found),
        images=len(coco.images),
        categories=categories,
    )


def segment_boxes(predictor: ImagePredictor, image: CocoImage, boxes: Sequence[Box]) -> Iterator[tuple[Rle, float]]:
    """Mask and predicted IoU of each box in a picture; a box that holds no pixel gives an empty mask."""
    corners = np.array(boxes, np.float64)
    x0, y0, x1, y1 = corners.T
    holds = (x0 < x1) & (y0 < y1)
    if holds.any():
        predictor.set_image(load_picture(image.path, image.size))
    for part in batches(len(boxes), image.size):
        masks, scores = np.zeros((len(corners[part]), *image.size), bool), np.zeros(len(corners[part]), np.float32)
        if holds[part].any():
            masks[holds[part]], scores[holds[part]] = by_box(predictor, corners[part][holds[part]])
        yield from zip(encode(masks), scores.tolist(), strict=True)


def average_precision(coco: CocoSet, found: Iterable[InstanceMask]) -> tuple[dict[str, float | None], dict[str, float]]:
    """COCO's figures of masks, whoever made them.

    Returns
    -------
    dict, dict
        Figures by the names in :class:`CocoAccuracy`; AP by name of the category.
    """
    tools = pycocotools()
    numbers = _Numbers(
        {image.id: n for n, image in enumerate(coco.images)},
        {category: n for n, category in enumerate(coco.categories)},
    )
    with redirect_stdout(io.StringIO()):  # it reports on its own work
        truth = _dataset(tools, coco, _annotations(coco, numbers))
        answers = _dataset(tools, coco, _results(found, numbers))
        evaluation = tools.cocoeval.COCOeval(truth, answers, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = {name: _known(value) for name, value in zip(_STATS, evaluation.stats, strict=False)}
    categories = {}
    for (number, name), index in zip(coco.categories.items(), evaluation.params.catIds, strict=True):
        precision = evaluation.eval["precision"][:, :, index, _ALL_AREAS, _MOST_DETECTIONS]
        if (precision > -1).any():
            unique = name if name not in categories else f"{name} ({number})"
            categories[unique] = float(precision[precision > -1].mean())
    return stats, categories


@dataclass(frozen=True)
class _Numbers:
    """Numbers from 0 in place of a file's own ids, which COCOeval sorts and so must be of one kind."""

    images: dict[Id, int]
    categories: dict[Id, int]


def _by_image(
    images: Sequence[CocoImage], prompts: Iterable[Any], progress: Callable[[str, int, int], None] | None
) -> Iterator[tuple[CocoImage, list[Any]]]:
    """Each picture that has prompts, with them."""
    grouped: dict[Id, list[Any]] = defaultdict(list)
    for prompt in prompts:
        grouped[prompt.image].append(prompt)
    for done, image in enumerate(images):
        if progress is not None:
            progress("pictures", done, len(images))
        if grouped[image.id]:
            yield image, grouped[image.id]
    if progress is not None:
        progress("pictures", len(images), len(images))


def _dataset(tools: Any, coco: CocoSet, annotations: list[dict[str, Any]]) -> Any:
    dataset = tools.coco.COCO()
    dataset.dataset = {
        "images": [{"id": n, "height": each.size[0], "width": each.size[1]} for n, each in enumerate(coco.images)],
        "categories": [{"id": n} for n in range(len(coco.categories))],
        "annotations": annotations,
    }
    dataset.createIndex()
    return dataset


def _annotations(coco: CocoSet, numbers: _Numbers) -> list[dict[str, Any]]:
    """Numbered from 1, whatever the file says: COCOeval takes a match with number 0 for none."""
    return [
        {
            "id": n,
            "image_id": numbers.images[each.image],
            "category_id": numbers.categories[each.category],
            "area": each.area,
            "iscrowd": int(each.crowd),
            "segmentation": each.mask,
        }
        for n, each in enumerate(coco.objects, 1)
    ]


def _results(found: Iterable[InstanceMask], numbers: _Numbers) -> list[dict[str, Any]]:
    return [
        {
            "id": n,
            "image_id": numbers.images[each.image],
            "category_id": numbers.categories[each.category],
            "area": area(each.mask),
            "iscrowd": 0,
            "segmentation": each.mask,
            "score": each.score,
        }
        for n, each in enumerate(found, 1)
    ]


def _known(value: float) -> float | None:
    """COCOeval says -1 where there is nothing to find."""
    return None if value < 0 else float(value)
