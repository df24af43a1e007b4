"""Masks of SAM 2 against upstream's code and scipy's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.masks import choose_stable, clean, enlarge, enlarge_above, fill_holes, separate


def test_the_choice_by_stability_is_upstreams(sam2: Any, model: FloatModel) -> None:
    rng = np.random.default_rng(0)
    masks = rng.normal(size=(6, 4, 16, 16)).astype(np.float32)
    masks[:3, 0] = np.sign(masks[:3, 0])  # stable: no logit between the limits
    masks[3, 0] = -1  # empty
    masks[4:, 0] *= 0.05
    iou = rng.uniform(size=(6, 4)).astype(np.float32)
    expected = sam2.sam_mask_decoder._dynamic_multimask_via_stability(torch.from_numpy(masks), torch.from_numpy(iou))
    for ours, theirs in zip(choose_stable(model.spec, masks, iou), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
    never = choose_stable(replace(model.spec, stability_threshold=2.0), masks, iou)[1]
    np.testing.assert_array_equal(never[:, 0], iou[:, 1:].max(1))


def test_small_holes_are_filled_and_small_sprinkles_removed() -> None:
    mask = np.full((1, 12, 12), -5.0, np.float32)
    mask[0, 1:8, 1:8] = 5
    mask[0, 3, 3] = mask[0, 4, 4] = -5  # a hole of two pixels, joined by a corner
    mask[0, 10, 10] = 5
    np.testing.assert_array_equal(clean(mask, 0.0, 1, 0), mask)
    filled = clean(mask, 0.0, 2, 1)
    assert filled[0, 3, 3] == filled[0, 4, 4] == 10 and filled[0, 10, 10] == -10
    changed = filled != mask
    assert changed.sum() == 3


def test_masks_are_enlarged_as_torch_does() -> None:
    masks = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(masks), (37, 50), mode="bilinear").numpy()
    np.testing.assert_allclose(enlarge(masks, (37, 50)), expected, atol=1e-5)
    np.testing.assert_array_equal(enlarge_above(masks, (37, 50), 0.5), enlarge(masks, (37, 50)) > 0.5)


def test_holes_are_filled_as_upstream_does(video_pair: Any) -> None:
    from sam2.utils.misc import fill_holes_in_mask_scores

    masks = np.random.default_rng(2).normal(size=(3, 1, 40, 50)).astype(np.float32) + np.float32(1.2)
    expected = fill_holes_in_mask_scores(torch.from_numpy(masks), 3).numpy()
    filled = fill_holes(masks, 3)
    assert (filled != masks).any()
    np.testing.assert_array_equal(filled, expected)


def test_overlaps_are_separated_as_upstream_does(sam2: Any) -> None:
    masks = np.random.default_rng(3).normal(size=(4, 1, 20, 30)).astype(np.float32) * 8
    for part in (masks, masks[:1]):
        expected = sam2._apply_non_overlapping_constraints(torch.from_numpy(part)).numpy()
        np.testing.assert_array_equal(separate(part), expected)
