"""Masks in files: labels with a palette, and run lengths against pycocotools."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tvm_ahcq.errors import ImageError
from tvm_ahcq.mask_files import encode_rle, palette, save_labels


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (37, 50), (480, 854)])
def test_run_lengths_are_those_of_coco(size: tuple[int, int], density: float) -> None:
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((size[0] // 8 + 1, size[1] // 8 + 1)), np.ones((8, 8)))[: size[0], : size[1]]
    for values in (rng.random(size), coarse):
        mask = values < density
        expected = coco.encode(np.asfortranarray(mask, np.uint8))
        found = encode_rle(mask)
        assert found["counts"] == expected["counts"].decode() and found["size"] == list(expected["size"])
        np.testing.assert_array_equal(coco.decode({**found, "counts": found["counts"].encode()}), mask)


def test_the_smallest_number_is_on_top_and_colours_are_those_of_davis() -> None:
    masks = {1: np.zeros((4, 6), bool), 2: np.zeros((4, 6), bool)}
    masks[1][:, :4], masks[2][:, 2:5] = True, True
    file = BytesIO()
    save_labels(file, masks, (4, 6))
    with Image.open(file) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture)[0], [1, 1, 1, 1, 2, 0])
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB"))[0, [0, 4, 5]], palette()[[1, 2, 0]])
    np.testing.assert_array_equal(
        palette()[[0, 1, 2, 3, 4]], [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    )


def test_a_number_without_a_place_is_refused() -> None:
    with pytest.raises(ImageError, match="object 256"):
        save_labels(BytesIO(), {256: np.zeros((2, 2), bool)}, (2, 2))
