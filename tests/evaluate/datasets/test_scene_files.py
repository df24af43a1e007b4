"""Generated scenes as files: they say what the scenes say, in the forms that real sets have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as tools
from pycocotools.coco import COCO

from tvm_ahcq.evaluate.datasets.scene_files import PART, polygons, run_lengths, write_scenes
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.scenes import generate

FIRST, COUNT = 0, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes") / "made"
    write_scenes(path, FIRST, COUNT)
    return path


@pytest.fixture(scope="module")
def coco(folder: Path) -> COCO:
    return COCO(str(folder / "instances.json"))


def test_pictures_and_masks_are_those_of_the_scenes(folder: Path) -> None:
    assert len(list((folder / "images").iterdir())) == len(list((folder / "masks").iterdir())) == COUNT + 1
    for number in range(COUNT):
        scene = generate(FIRST + number)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "images" / f"{number:06d}.png")), scene.image)
        labels = np.asarray(Image.open(folder / "masks" / f"{number:06d}.png"))
        for index in scene.objects():
            if scene.parents[index] == 0:
                np.testing.assert_array_equal(labels == index, scene.mask(index))
    assert not np.asarray(Image.open(folder / "masks" / f"{COUNT:06d}.png")).any()


def test_every_annotation_outlines_an_object_of_its_scene(coco: COCO) -> None:
    for annotation in coco.anns.values():
        if annotation["iscrowd"]:
            continue
        scene = generate(FIRST + annotation["image_id"] - 1000)
        mask = coco.annToMask(annotation).astype(bool)
        candidates = [
            scene.mask(index)
            for index in scene.objects()
            if bool(scene.parents[index]) == (annotation["category_id"] == PART)
        ]
        best = max(candidates, key=lambda each: iou(each, mask))
        assert iou(best, mask) > 0.96 and annotation["area"] == best.sum()


def test_the_set_has_what_real_sets_have(coco: COCO) -> None:
    annotations = coco.anns.values()
    assert {type(each["segmentation"]) for each in annotations if not each["iscrowd"]} >= {list}
    assert any(each["iscrowd"] for each in annotations)
    assert {each["category_id"] for each in annotations} == {1, PART}
    assert coco.imgToAnns[1000 + COUNT] == []


def test_the_detector_misses_misplaces_and_imagines(folder: Path, coco: COCO) -> None:
    detections = json.loads((folder / "detections.json").read_text())
    boxes = {each["image_id"]: [a["bbox"] for a in coco.imgToAnns[each["image_id"]]] for each in detections}
    best = [
        tools.iou([each["bbox"]], boxes[each["image_id"]], [0] * len(boxes[each["image_id"]])).max()
        for each in detections
    ]
    scores = np.array([each["score"] for each in detections])
    assert len(detections) < sum(not each["iscrowd"] for each in coco.anns.values()) + COUNT
    assert np.mean(np.array(best) > 0.7) > 0.7 and 0 < scores.min() < 0.5 < scores.max() <= 1
    assert max(best) < 1


def test_equal_numbers_give_equal_files(folder: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, FIRST, COUNT)
    for name in ("instances.json", "detections.json", "images/000003.png", "masks/000003.png"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_hold_the_mask(seed: int) -> None:
    mask = np.random.default_rng(seed).random((7, 9)) < (0.5, 0.0, 1.0, 0.9)[seed]
    runs = run_lengths(mask)
    np.testing.assert_array_equal(tools.decode(tools.frPyObjects(runs, 7, 9)), mask)


def test_polygons_follow_the_outline_of_every_part() -> None:
    mask = np.zeros((60, 60), bool)
    mask[0:20, 0:30], mask[30:55, 40:60] = True, True
    shapes = polygons(mask)
    assert len(shapes) == 2
    found = tools.decode(tools.merge(tools.frPyObjects(shapes, 60, 60))).astype(bool)
    assert iou(found, mask) > 0.98
