"""Masks in COCO's forms."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from pycocotools import mask as tools

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.coco_masks import area, box_of, encode, pycocotools, rle_iou, to_rle

MASK = np.zeros((12, 20), bool)
MASK[2:9, 5:15] = True
COMPRESSED = tools.encode(np.asfortranarray(MASK.astype(np.uint8)))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[5, 2, 15, 2, 15, 9, 5, 9]],
        [[5, 2, 10, 2, 10, 9, 5, 9], [10, 2, 15, 2, 15, 9, 10, 9]],
        {"size": [12, 20], "counts": [5 * 12 + 2, *[7, 5] * 9, 7, 3 + 5 * 12]},
        {"size": [12, 20], "counts": COMPRESSED["counts"].decode()},
    ],
)
def test_every_form_of_a_mask_is_the_same_mask(segmentation: object) -> None:
    rle = to_rle(segmentation, (12, 20), "here")
    np.testing.assert_array_equal(tools.decode(rle), MASK)
    assert area(rle) == 70 and box_of(rle) == (5, 2, 15, 9)


def test_masks_are_encoded_one_by_one() -> None:
    masks = np.stack([MASK, ~MASK, np.zeros_like(MASK)])
    for mask, rle in zip(masks, encode(masks), strict=True):
        np.testing.assert_array_equal(tools.decode(rle), mask)
    assert encode(masks[:0]) == []
    assert rle_iou(encode(masks)[0], encode(masks)[1]) == 0.0
    half = MASK.copy()
    half[:, :10] = False
    assert rle_iou(encode(masks)[0], encode(half[None])[0]) == 0.5


@pytest.mark.parametrize("nothing", [[], {}, None])
def test_no_segmentation_is_none(nothing: object) -> None:
    assert to_rle(nothing, (12, 20), "here") is None


@pytest.mark.parametrize(
    "segmentation, words",
    [
        ([[1, 2, 3, 4]], "three points"),
        ([1, 2, 3, 4, 5, 6], "three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "three points"),
        ("polygon", "three points"),
        ({"size": [20, 12], "counts": [240]}, "size \\[20, 12\\]"),
        ({"size": [12, 20], "counts": [100]}, "add up to 100, its picture has 240"),
        ({"size": [12, 20]}, "no counts"),
        ({"size": [12, 20], "counts": "abc"}, "damaged"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(segmentation: object, words: str) -> None:
    with pytest.raises(EvaluationError, match=f"^annotation 3: .*{words}"):
        to_rle(segmentation, (12, 20), "annotation 3")


def test_a_missing_pycocotools_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(EvaluationError, match="pip install pycocotools"):
        pycocotools()
