"""The picture of a prediction: inside, outline, prompts, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import ImageError
from tvm_ahcq.runtime.overlay import COLOURS, overlay, save_overlay

IMAGE = np.full((60, 80, 3), 100, np.uint8)


@pytest.fixture
def mask():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    return mask


def test_inside_is_tinted_outline_is_solid_outside_is_untouched(mask):
    drawn = overlay(IMAGE, mask)
    np.testing.assert_array_equal(drawn[~mask], 100)
    np.testing.assert_array_equal(drawn[20, 30:60], np.tile(COLOURS[0], (30, 1)))
    expected = np.rint(100 * 0.55 + np.array(COLOURS[0]) * 0.45)
    np.testing.assert_array_equal(drawn[21:39, 31:59].reshape(-1, 3), np.tile(expected, (18 * 28, 1)))
    np.testing.assert_array_equal(IMAGE, 100)


def test_a_mask_that_fills_the_image_has_no_outline():
    drawn = overlay(IMAGE, np.ones((1, 60, 80), bool))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1


def test_masks_take_colours_in_turn(mask):
    drawn = overlay(IMAGE, np.stack([np.zeros_like(mask), mask]))
    np.testing.assert_array_equal(drawn[20, 40], COLOURS[1])


def test_prompts_are_drawn_green_and_red_and_boxes_white(mask):
    drawn = overlay(
        IMAGE,
        np.zeros_like(mask),
        np.array([[10, 10], [70, 50], [40, 30]]),
        np.array([1, 0, -1]),
        np.array([5, 40, 25, 55]),
    )
    red, green = drawn[50, 70].astype(int), drawn[10, 10].astype(int)
    assert red[0] > 2 * red[1] and green[1] > 2 * green[0]
    np.testing.assert_array_equal(drawn[30, 40], 100)
    np.testing.assert_array_equal(drawn[40, 5:26], 255)


def test_it_is_saved_as_png_by_default(tmp_path, mask):
    save_overlay(tmp_path / "out", IMAGE, mask)
    with Image.open(tmp_path / "out") as saved:
        assert saved.format == "PNG"
        np.testing.assert_array_equal(np.array(saved), overlay(IMAGE, mask))


def test_masks_of_another_size_are_refused(mask):
    with pytest.raises(ImageError, match=r"masks have shape \(1, 59, 80\), expected \(C, 60, 80\)"):
        overlay(IMAGE, mask[1:])


def test_an_unwritable_path_is_named(tmp_path, mask):
    with pytest.raises(ImageError, match="the picture cannot be written"):
        save_overlay(tmp_path / "absent" / "out.png", IMAGE, mask)
