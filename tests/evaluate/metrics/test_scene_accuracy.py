"""Scoring against the truth with predictors whose answers are known."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.evaluate.metrics.scene_accuracy import SceneMasks, mean_iou, prompted_objects
from tvm_ahcq.scenes import generate


def test_iou_of_known_masks():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert iou(a, b) == 1 / 3


def test_prompts_lie_on_their_objects():
    for seed in range(6):
        objects = prompted_objects(generate(seed))
        for mask, (x, y), (x0, y0, x1, y1) in zip(objects.masks, objects.clicks, objects.boxes, strict=True):
            assert mask[int(y), int(x)]
            assert mask[int(y0) : int(y1), int(x0) : int(x1)].sum() == mask.sum()


def test_the_truth_scores_one_and_its_complement_less():
    objects = prompted_objects(generate(0))
    truth = SceneMasks(objects.masks, objects.masks, ~objects.masks)
    score = mean_iou([(truth, objects.masks)])
    assert score.click == score.single_click == 1.0 and score.box == 0.0
    assert score.objects == len(objects.masks)
