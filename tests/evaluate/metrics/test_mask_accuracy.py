"""Mean IoU over folders, with a segmenter whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.mask_folder import MaskFolder, read_mask_folder
from tvm_ahcq.evaluate.metrics.mask_accuracy import mask_accuracy


@pytest.fixture
def folder(mask_set: Path) -> MaskFolder:
    return read_mask_folder(mask_set / "images", mask_set / "masks")


def test_right_answers_score_one(folder: MaskFolder, colour_predictor: Callable) -> None:
    accuracy = mask_accuracy(colour_predictor(), folder)
    assert accuracy.figures() == {"click (best of 3)": 1.0, "click (1 mask)": 1.0, "box": 1.0}
    assert (accuracy.objects, accuracy.images, accuracy.empty) == (3, 3, 1)


def test_the_mean_is_over_objects(folder: MaskFolder, colour_predictor: Callable) -> None:
    # all rectangles are 72 pixels, 18 steps, high: 13 of them are found
    accuracy = mask_accuracy(colour_predictor(13 / 18), folder)
    assert accuracy.box == pytest.approx(13 / 18)
    assert accuracy.click == pytest.approx(13 / 18)
    assert [(score.image, score.label) for score in accuracy.scores] == [("0.png", 1), ("0.png", 2), ("1.png", 1)]
    assert json.loads(json.dumps(accuracy.to_dict()))["scores"][2]["box"] == pytest.approx(13 / 18)


def test_only_what_was_asked_for_is_prompted(folder: MaskFolder, colour_predictor: Callable) -> None:
    by_box = mask_accuracy(colour_predictor(), folder, ["box"])
    assert (by_box.click, by_box.single_click, by_box.box) == (None, None, 1.0)
    assert list(mask_accuracy(colour_predictor(), folder, ["click"]).figures()) == [
        "click (best of 3)",
        "click (1 mask)",
    ]
    with pytest.raises(EvaluationError, match="expected some of click, box"):
        mask_accuracy(colour_predictor(), folder, ["scribble"])


def test_void_pixels_count_neither_way(mask_set: Path, colour_predictor: Callable) -> None:
    labels = np.asarray(Image.open(mask_set / "masks" / "1.png")).copy()
    labels[92:116, 20:100] = 255  # over the lower 20 of the object's 72 rows, and some background
    Image.fromarray(labels).save(mask_set / "masks" / "1.png")
    folder = read_mask_folder(mask_set / "images", mask_set / "masks")
    assert mask_accuracy(colour_predictor(), folder, ["click"], void=255).click == 1.0
    scores = mask_accuracy(colour_predictor(), folder, ["click"]).scores
    assert [score.label for score in scores] == [1, 2, 1, 255]
    assert scores[2].click == pytest.approx(52 / 72)


def test_a_picture_without_objects_is_not_encoded(folder: MaskFolder, colour_predictor: Callable) -> None:
    predictor, steps = colour_predictor(), []
    mask_accuracy(predictor, folder, progress=lambda *step: steps.append(step))
    assert predictor.session.encoded == 2
    assert steps == [("pictures", done, 3) for done in range(4)]


def test_a_folder_of_empty_masks_is_refused(folder: MaskFolder, colour_predictor: Callable) -> None:
    with pytest.raises(EvaluationError, match="no object in any of 1 masks"):
        mask_accuracy(colour_predictor(), MaskFolder(folder.pairs[2:]))
    with pytest.raises(EvaluationError, match=r"and 1 \(void\)"):
        mask_accuracy(colour_predictor(), MaskFolder(folder.pairs[1:2]), void=1)
