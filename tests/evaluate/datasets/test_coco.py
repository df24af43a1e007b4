"""COCO-format files as people have them: with crowds, gaps, omissions and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.coco import read_coco, read_detections


@pytest.fixture
def read(mask_set: Path, write_json: Callable) -> Callable:
    """Function that reads a COCO set from content."""
    return lambda content, **options: read_coco(write_json(content), mask_set / "images", **options)


def test_images_objects_and_categories_are_read(read: Callable, coco_content: dict) -> None:
    coco = read(coco_content)
    assert [(image.id, image.path.name, image.size) for image in coco.images] == [
        (7, "0.png", (128, 128)),
        (8, "1.png", (128, 128)),
        (9, "2.png", (128, 128)),
    ]
    assert coco.categories == {90: "tall", 5: "square"}
    first = coco.objects[0]
    assert (first.image, first.category, first.box, first.area, first.crowd) == (7, 5, (8, 8, 80, 80), 72 * 72, False)
    assert (len(coco.objects), coco.unmasked) == (3, 0)


def test_a_limit_takes_the_first_images_and_their_objects_only(read: Callable, coco_content: dict) -> None:
    coco_content["images"][1]["file_name"] = "not_downloaded.png"
    coco = read(coco_content, limit=1)
    assert [image.id for image in coco.images] == [7] and len(coco.objects) == 2
    assert coco.image_ids == {7, 8, 9}


def test_what_a_file_leaves_out_is_taken_from_the_mask_and_the_picture(read: Callable, coco_content: dict) -> None:
    del coco_content["images"][0]["height"], coco_content["images"][0]["width"]
    annotation = coco_content["annotations"][0]
    del annotation["area"], annotation["iscrowd"], annotation["bbox"], annotation["id"]
    first = read(coco_content).objects[0]
    assert (first.box, first.area, first.crowd) == ((8, 8, 80, 80), 72 * 72, False)


def test_boxes_are_cut_at_the_edge_and_empty_ones_replaced(read: Callable, coco_content: dict) -> None:
    coco_content["annotations"][0]["bbox"] = [-5, 8, 300, 20]
    coco_content["annotations"][1]["bbox"] = [50, 50, 0, 0]
    first, second, _ = read(coco_content).objects
    assert first.box == (0, 8, 128, 28)
    assert second.box == (84, 20, 116, 92)


def test_annotations_without_a_mask_become_crowds(read: Callable, coco_content: dict) -> None:
    coco_content["annotations"][0]["segmentation"] = []
    coco_content["annotations"].append({"image_id": 9, "category_id": 5, "bbox": [3, 3, 0, 0], "segmentation": []})
    coco = read(coco_content)
    assert [each.crowd for each in coco.objects] == [True, False, False]
    assert coco.unmasked == 2


def test_whole_numbers_may_be_written_as_floats(read: Callable, coco_content: dict) -> None:
    coco_content["annotations"][0]["category_id"] = 5.0
    category = read(coco_content).objects[0].category
    assert category == 5 and isinstance(category, int)


def test_a_picture_annotated_as_stored_is_accepted(read: Callable, coco_content: dict, mask_set: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(mask_set / "images" / "2.png", exif=exif)
    for height, width in ((40, 60), (60, 40)):
        coco_content["images"][2] |= {"height": height, "width": width}
        assert read(coco_content).images[2].size == (height, width)


@pytest.mark.parametrize(
    "content, words",
    [
        ([], "holds a list; expected an object with images, annotations and categories"),
        ({"images": []}, r"holds the keys \['images'\]"),
        ({"images": None, "annotations": [], "categories": []}, "its images are not a list"),
        ({"images": [], "annotations": [], "categories": [3]}, "its categories are not a list of objects"),
    ],
)
def test_what_is_no_instance_file_is_refused(content: Any, words: str, read: Callable) -> None:
    with pytest.raises(EvaluationError, match=r"instances\.json: .*" + words):
        read(content)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["images"][1].pop("file_name"), "image 1 has no file_name"),
        (lambda c: c["images"][1].update(file_name="absent.png"), r"images/absent\.png: no such file"),
        (lambda c: c["images"][1].update(file_name=3), "file_name 3; expected text"),
        (lambda c: c["images"][1].update(id=7), "two of its 3 images have the same id"),
        (lambda c: c["images"][1].update(id=None), "image 1 has id None; expected a whole number"),
        (
            lambda c: c["images"][1].update(width=64),
            r"images/1\.png is 128 x 128 pixels, .*instances\.json says 64 x 128",
        ),
        (lambda c: c["annotations"][1].update(image_id=70), "annotation 1 has image_id 70, which is not in the file"),
        (
            lambda c: c["annotations"][1].update(category_id=6),
            "annotation 1 has category_id 6, which is not in the file",
        ),
        (lambda c: c["annotations"][1].pop("category_id"), "annotation 1 has no category_id; it has"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), r"annotation 1 \(id 1\) has bbox \[1, 2, 3\]; expected"),
        (lambda c: c["annotations"][1].update(segmentation=[[1, 2]]), r"annotation 1 \(id 1\): its segmentation"),
        (lambda c: c["categories"][0].pop("id"), "category 0 has no id"),
        (lambda c: c.update(annotations=[]), "none of its 3 images has an object"),
        (lambda c: [each.update(iscrowd=1) for each in c["annotations"]], "none of its 3 images has an object"),
    ],
)
def test_entries_that_do_not_fit_together_are_refused_by_name(
    change: Callable, words: str, read: Callable, coco_content: dict
) -> None:
    change(coco_content)
    with pytest.raises(EvaluationError, match=words):
        read(coco_content)


def test_files_that_are_not_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("{'images': ")
    with pytest.raises(EvaluationError, match=r"text\.json: not JSON: .*line 1"):
        read_coco(tmp_path / "text.json", tmp_path)
    with pytest.raises(EvaluationError, match=r"absent\.json: no such file"):
        read_coco(tmp_path / "absent.json", tmp_path)
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_coco(tmp_path, tmp_path)


DETECTION = {"image_id": 7, "category_id": 5, "bbox": [100, 100, 50.5, 10], "score": 0.5}


def test_detections_are_cut_at_the_edge_and_limited_to_the_images(
    read: Callable, coco_content: dict, write_json: Callable
) -> None:
    coco = read(coco_content, limit=1)
    (found,) = read_detections(write_json([DETECTION, {**DETECTION, "image_id": 8}], "found.json"), coco)
    assert (found.image, found.category, found.box, found.score) == (7, 5, (100, 100, 128, 110), 0.5)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"annotations": []}, "holds a dict; expected a list"),
        ([3], "detection 0 is a int"),
        ([DETECTION, {**DETECTION, "image_id": 70}], r"detection 1 has image_id 70, which is not in instances\.json"),
        ([{**DETECTION, "image_id": "7"}], "detection 0 has image_id '7', which is not in"),
        ([{**DETECTION, "category_id": 0}], r"category_id 0, which is not in instances\.json, which has .*numbers its"),
        ([{**DETECTION, "bbox": [1, 2, None, 3]}], "detection 0 has bbox"),
        ([{**DETECTION, "score": float("nan")}], "score nan; expected a finite number"),
        ([{key: value for key, value in DETECTION.items() if key != "score"}], "detection 0 has no score; it has"),
    ],
)
def test_detections_that_do_not_fit_are_refused_by_name(
    content: Any, words: str, read: Callable, coco_content: dict, write_json: Callable
) -> None:
    with pytest.raises(EvaluationError, match=r"found\.json: .*" + words):
        read_detections(write_json(content, "found.json"), read(coco_content))
