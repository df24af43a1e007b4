"""Masks side by side: which prompts are shown, and what the difference shows."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from tvm_ahcq.evaluate.report.mask_pictures import (
    LONGEST_SIDE,
    ONLY_FLOAT,
    ONLY_QUANTIZED,
    data_uri,
    difference,
    instructive,
    side_by_side,
)
from tvm_ahcq.evaluate.sensitivity.measure import MaskPair
from tvm_ahcq.evaluate.sensitivity.probes import Probe

NOTHING = np.zeros((8, 8), bool)


def pair(picture: int, prompt: int, iou: float) -> MaskPair:
    return MaskPair(picture, prompt, NOTHING, NOTHING, iou)


def decoded(uri: str) -> Image.Image:
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_worst_prompt_of_a_picture_is_shown_and_one_in_the_middle():
    pairs = [pair(0, 0, 0.9), pair(0, 1, 0.5), pair(0, 2, 1.0), pair(1, 0, 0.7), pair(2, 0, 0.1)]
    chosen = [(each.picture, each.prompt) for each in instructive(pairs, 2)]
    assert chosen == [(0, 1), (0, 0), (1, 0)]


def test_the_difference_colours_what_only_one_mask_has():
    image = np.full((8, 8, 3), 200, np.uint8)
    exact, quantized = NOTHING.copy(), NOTHING.copy()
    exact[:4], quantized[2:6] = True, True
    shown = difference(image, exact, quantized)
    assert (shown[:2] == ONLY_FLOAT).all() and (shown[4:6] == ONLY_QUANTIZED).all()
    assert (shown[2:4] == 230).all() and (shown[6:] == 100).all()


def test_pictures_are_shrunk_and_keep_their_shape():
    assert decoded(data_uri(np.zeros((300, 1200, 3), np.uint8))).size == (LONGEST_SIDE, LONGEST_SIDE // 4)
    assert decoded(data_uri(np.zeros((30, 40, 3), np.uint8))).size == (40, 30)


def test_the_prompt_is_drawn_into_both_masks():
    image = np.full((64, 64, 3), 90, np.uint8)
    probe = Probe(image, np.array([[20.0, 30.0]]), np.array([[5.0, 5.0, 60.0, 50.0]]))
    masks = np.zeros((64, 64), bool)
    for prompt, place in ((0, (30, 20)), (1, (5, 30))):
        *both, _ = (np.asarray(decoded(uri)) for uri in side_by_side(MaskPair(0, prompt, masks, masks, 1.0), probe))
        for picture in both:
            assert np.abs(picture[place].astype(int) - 90).max() > 30
