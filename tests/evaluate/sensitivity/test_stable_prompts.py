"""Prompts with stable masks: stability, and that the chosen ones have more of it."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.api import float_predictor
from tvm_ahcq.evaluate.sensitivity.probes import BOXES, CLICKS, in_frame, random_probes
from tvm_ahcq.evaluate.sensitivity.stable_prompts import stability, stable_probes
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.load import from_sam
from tvm_ahcq.scenes import generate


def test_stability_is_the_overlap_of_a_higher_and_a_lower_threshold():
    logits = np.array([[[5.0, 5.0], [-5.0, 0.5]], [[5.0, -5.0], [-5.0, -5.0]], [[-5.0, -5.0], [-5.0, -5.0]]])
    assert stability(logits, 0.0).tolist() == [2 / 3, 1.0, 0.0]


def test_chosen_clicks_have_more_stable_masks_than_random_ones_and_boxes_lie_on_the_picture():
    model, image = from_sam("vit_t"), generate(3).image[:200]
    (chosen,), (random,) = stable_probes(model, [image]), random_probes([image])
    assert chosen.clicks.shape == (CLICKS, 2) and 0 < len(chosen.boxes) <= BOXES
    assert (chosen.boxes[:, :2] < chosen.boxes[:, 2:]).all()
    assert (chosen.boxes >= 0).all() and (chosen.boxes <= np.tile(image.shape[1::-1], 2)).all()
    session = float_predictor(model).session

    def mean_stability(probe) -> float:
        frame = in_frame(probe, model.spec)
        masks, scores = (
            np.asarray(out)
            for out in SamFunctions(session).decode(SamFunctions(session).encode(frame.image), *frame.prompts)
        )
        best = masks[np.arange(CLICKS), 1 + scores[:CLICKS, 1:].argmax(1)]
        return float(stability(best, model.spec.mask_threshold).mean())

    assert mean_stability(chosen) > mean_stability(random)
