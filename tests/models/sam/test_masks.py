"""Resizing of mask logits against torch's two interpolations, as upstream calls them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ahcq.models.sam.image import ResizeLongestSide
from tvm_ahcq.models.sam.masks import linear_taps, resize_masks, threshold_masks


def upstream(low, image_size, input_size, original_size):
    masks = torch.from_numpy(low)[None]
    options = dict(mode="bilinear", align_corners=False)
    masks = torch.nn.functional.interpolate(masks, (image_size, image_size), **options)
    masks = masks[..., : input_size[0], : input_size[1]]
    return torch.nn.functional.interpolate(masks, original_size, **options)[0].numpy()


def check(height, width, side):
    low = np.random.default_rng(height).normal(0, 3, (2, side // 4, side // 4)).astype(np.float32)
    frame = side, ResizeLongestSide.get_preprocess_shape(height, width, side), (height, width)
    expected = upstream(low, *frame)
    found = resize_masks(low, *frame)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    masks = threshold_masks(low, *frame, 0.0)
    assert masks.dtype == bool
    assert not (masks != (expected > 0))[np.abs(expected) > 1e-5].any()


@given(st.integers(1, 500), st.integers(1, 500))
@settings(max_examples=40, deadline=None)
def test_masks_equal_upstreams_for_any_image_size(height, width):
    check(height, width, 128)


@pytest.mark.parametrize("size", [(1200, 1800), (1024, 1024), (3, 2000), (4000, 160)])
def test_masks_equal_upstreams_at_the_size_of_sam(size):
    check(*size, 1024)


@given(st.integers(1, 300), st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_one_axis_equals_torch(size, target):
    signal = np.random.default_rng(size).normal(0, 3, size).astype(np.float32)
    low, high, share = linear_taps(size, target)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(signal)[None, None], target, mode="linear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(signal[low] * (1 - share) + signal[high] * share, expected, atol=1e-5)


def test_leading_axes_are_kept():
    low = np.zeros((5, 3, 16, 16), np.float32)
    assert resize_masks(low, 64, (64, 32), (20, 10)).shape == (5, 3, 20, 10)
    assert threshold_masks(low, 64, (64, 32), (20, 10), 0.0).shape == (5, 3, 20, 10)


def test_booleans_of_a_large_image_take_little_more_memory_than_themselves():
    low = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    threshold_masks(low, 256, (256, 256), (3000, 3000), 0.0)
    tracemalloc.start()
    masks = threshold_masks(low, 256, (256, 256), (3000, 3000), 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < masks.nbytes + 8 * 2**20 < masks.size * 4


def test_the_threshold_itself_is_background():
    assert not threshold_masks(np.full((8, 8), 2.0, np.float32), 32, (32, 32), (40, 40), 2.0).any()
