"""COCO mask AP: masks whose figures are known, and pycocotools on the files themselves as the other opinion."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tvm_ahcq.evaluate.datasets.coco import CocoSet, Detection, read_coco, read_detections
from tvm_ahcq.evaluate.datasets.coco_masks import area, encode
from tvm_ahcq.evaluate.datasets.scene_files import write_scenes
from tvm_ahcq.evaluate.metrics.coco_accuracy import InstanceMask, average_precision, coco_accuracy, segment_boxes


@pytest.fixture
def read(mask_set: Path, write_json: Callable) -> Callable[[dict], CocoSet]:
    return lambda content: read_coco(write_json(content), mask_set / "images")


def test_right_masks_have_ap_1(read: Callable, coco_content: dict, colour_predictor: Callable) -> None:
    accuracy = coco_accuracy(colour_predictor(), read(coco_content))
    for figure in (accuracy.ap, accuracy.ap50, accuracy.ap75, accuracy.ap_medium, accuracy.miou):
        assert figure == pytest.approx(1.0)
    assert accuracy.ap_small is None and accuracy.ap_large is None  # 72 x 72 and 32 x 72: all are of medium size
    assert accuracy.categories == pytest.approx({"square": 1.0, "tall": 1.0})
    assert (accuracy.prompts, accuracy.images) == (3, 3)
    assert json.loads(json.dumps(accuracy.to_dict()))["ap_small"] is None


def test_masks_of_known_iou_pass_the_thresholds_below_it(
    read: Callable, coco_content: dict, colour_predictor: Callable
) -> None:
    accuracy = coco_accuracy(colour_predictor(13 / 18), read(coco_content))
    assert accuracy.miou == pytest.approx(13 / 18)  # 0.72: at least 0.50, 0.55, ... 0.70, which is half of ten
    assert (accuracy.ap50, accuracy.ap75) == (pytest.approx(1.0), 0.0)
    assert accuracy.ap == pytest.approx(0.5)


def test_pictures_without_annotations_cost_nothing(
    read: Callable, coco_content: dict, colour_predictor: Callable
) -> None:
    predictor, steps = colour_predictor(), []
    coco_accuracy(predictor, read(coco_content), progress=lambda *step: steps.append(step))
    assert predictor.session.encoded == 2
    assert steps == [("pictures", done, 3) for done in range(4)]


def test_crowds_are_not_prompted_and_what_is_found_in_them_does_not_count(
    read: Callable, coco_content: dict, colour_predictor: Callable
) -> None:
    coco_content["annotations"][1] |= {"iscrowd": 1, "category_id": 5}
    coco = read(coco_content)
    assert coco_accuracy(colour_predictor(), coco).prompts == 2
    real = [Detection(each.image, each.category, each.box, 0.6) for each in coco.objects if not each.crowd]
    in_crowd, elsewhere = Detection(7, 5, (84, 24, 116, 60), 0.9), Detection(7, 5, (0, 96, 128, 128), 0.9)
    assert coco_accuracy(colour_predictor(), coco, [*real, in_crowd]).ap == pytest.approx(1.0)
    assert coco_accuracy(colour_predictor(), coco, [*real, elsewhere]).ap < 0.8


def test_detections_are_ranked_by_the_detectors_score(
    read: Callable, coco_content: dict, colour_predictor: Callable
) -> None:
    coco = read(coco_content)
    real = [Detection(each.image, each.category, each.box, 0.6) for each in coco.objects]
    wrong = [Detection(9, category, (0, 0, 40, 40), 0.5) for category in (5, 90)]
    accuracy = coco_accuracy(colour_predictor(), coco, [*real, *wrong])
    assert accuracy.ap == pytest.approx(1.0) and accuracy.miou is None
    wrong = [replace(each, score=0.7) for each in wrong]
    # a wrong one ahead of n right ones: precision n / (n + 1), at every recall
    assert coco_accuracy(colour_predictor(), coco, [*real, *wrong]).categories == pytest.approx(
        {"square": 2 / 3, "tall": 1 / 2}
    )


def test_no_detections_at_all_have_ap_0(read: Callable, coco_content: dict, colour_predictor: Callable) -> None:
    accuracy = coco_accuracy(colour_predictor(), read(coco_content), [])
    assert (accuracy.ap, accuracy.prompts) == (0.0, 0)


def test_a_box_outside_the_picture_gives_an_empty_mask(
    read: Callable, coco_content: dict, colour_predictor: Callable
) -> None:
    image = read(coco_content).images[0]
    boxes = [(8.0, 8.0, 80.0, 80.0), (128.0, 5.0, 128.0, 9.0), (84.0, 20.0, 116.0, 92.0)]
    assert [area(mask) for mask, _ in segment_boxes(colour_predictor(), image, boxes)] == [72 * 72, 0, 32 * 72]
    predictor = colour_predictor()
    assert [area(mask) for mask, _ in segment_boxes(predictor, image, boxes[1:2])] == [0]
    assert predictor.session.encoded == 0


def test_ids_may_be_of_any_kind(read: Callable, coco_content: dict, colour_predictor: Callable) -> None:
    coco_content["images"][0]["id"] = "first"
    for annotation in coco_content["annotations"][:2]:
        annotation |= {"image_id": "first", "id": 0}
    assert coco_accuracy(colour_predictor(), read(coco_content)).ap == pytest.approx(1.0)


def shaken(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Masks moved by some pixels, so that IoUs are all over."""
    return np.stack([np.roll(mask, rng.integers(-6, 7, 2), (0, 1)) for mask in masks])


def test_figures_equal_those_of_pycocotools_on_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path, 100, 6)
    coco = read_coco(tmp_path / "instances.json", tmp_path / "images")
    other = COCO(str(tmp_path / "instances.json"))
    rng = np.random.default_rng(0)
    found, results = [], []
    for number, annotation in other.anns.items():
        if number % 7 == 0:
            continue
        mask = shaken(other.annToMask(annotation)[None].astype(bool), rng)
        (rle,), score = encode(mask), float(rng.random())
        found.append(InstanceMask(annotation["image_id"], annotation["category_id"], rle, score))
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "score": score,
                "segmentation": dict(rle),
            }
        )
    evaluation = COCOeval(other, other.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    stats, _ = average_precision(coco, found)
    assert capsys.readouterr().out == ""
    expected = [None if value < 0 else pytest.approx(value) for value in evaluation.stats[:6]]
    assert list(stats.values()) == expected and 0.1 < stats["ap"] < 0.9


def test_generated_detections_are_of_the_generated_set(tmp_path: Path) -> None:
    write_scenes(tmp_path, 3, 4)
    coco = read_coco(tmp_path / "instances.json", tmp_path / "images")
    detections = read_detections(tmp_path / "detections.json", coco)
    assert {each.image for each in detections} == {image.id for image in coco.images[:-1]}
