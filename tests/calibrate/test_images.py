"""Calibration images: preprocessing equal to upstream's, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tvm_ahcq.calibrate.images import load_calibration, load_pictures
from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t

MODEL = SamSpec("tiny", 64, 4, 32, 0.0, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def image(seed: int, height: int = 40, width: int = 70) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, written in another order than that of their names, a text file and a subfolder."""
    for name, seed in (("c.png", 3), ("a.png", 1), ("b.PNG", 2)):
        Image.fromarray(image(seed)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "more.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(("height", "width"), [(40, 70), (100, 30), (64, 64), (7, 5)])
def test_preprocessing_equals_upstream(height: int, width: int) -> None:
    sam = build_sam_vit_t(
        image_size=64, depth=1, embed_dim=16, num_heads=1, global_attn_indexes=(), window_size=2, prompt_dim=32
    )
    from segment_anything.utils.transforms import ResizeLongestSide

    picture = image(0, height, width)
    resized = torch.as_tensor(ResizeLongestSide(64).apply_image(picture)).permute(2, 0, 1)[None]
    (ours,) = load_calibration([picture], MODEL)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, sam.preprocess(resized).numpy(), atol=1e-6)


def test_folder_is_read_in_the_order_of_names(folder: Path) -> None:
    expected = list(load_calibration([image(1), image(2), image(3)], MODEL))
    for source in (folder, str(folder)):
        np.testing.assert_array_equal(list(load_calibration(source, MODEL)), expected)


def test_paths_pillow_images_and_arrays_mean_the_same(folder: Path) -> None:
    forms = [folder / "a.png", str(folder / "a.png"), Image.fromarray(image(1)), image(1)]
    first, *others = load_calibration(iter(forms), MODEL)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_grey_and_transparent_pillow_images_become_rgb() -> None:
    forms = [Image.fromarray(image(1)).convert(mode) for mode in ("L", "RGBA", "P")]
    assert [x.shape for x in load_calibration(forms, MODEL)] == [(1, 3, 64, 64)] * 3


def test_a_batch_array_is_an_iterable_of_images() -> None:
    assert len(list(load_calibration(np.stack([image(1), image(2)]), MODEL))) == 2


@pytest.mark.parametrize(("limit", "expected"), [(None, 3), (2, 2), (9, 3)])
def test_limit(folder: Path, limit: int | None, expected: int) -> None:
    assert len(list(load_calibration(folder, MODEL, limit))) == expected


def test_images_are_read_one_by_one() -> None:
    def endless():
        while True:
            yield image(1)

    assert len(list(load_calibration(endless(), MODEL, limit=3))) == 3


def test_unreadable_file_in_a_folder_is_named_and_left_out(folder: Path) -> None:
    (folder / "b.PNG").write_bytes((folder / "b.PNG").read_bytes()[:200])
    with pytest.warns(UserWarning, match=r"b\.PNG"):
        images = list(load_calibration(folder, MODEL))
    np.testing.assert_array_equal(images, list(load_calibration([image(1), image(3)], MODEL)))


def test_folder_without_a_readable_image(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"not a jpeg")
    with pytest.warns(UserWarning, match=r"x\.jpg"), pytest.raises(CalibrationError, match=r"none of its 1 .*x\.jpg"):
        list(load_calibration(tmp_path, MODEL))


def test_wrong_sources_are_refused_before_any_work(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, message in [
        (tmp_path / "absent", "no such folder"),
        (folder / "a.png", "is not a folder"),
        (empty, "no image files"),
        ([], "is empty"),
        (image(1), "single image"),
        (Image.fromarray(image(1)), "single image"),
        (7, "is a int"),
    ]:
        with pytest.raises(CalibrationError, match=message):
            load_calibration(source, MODEL)
    with pytest.raises(CalibrationError, match="limit is 0"):
        load_calibration(folder, MODEL, 0)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), "absent.png", None])
def test_elements_that_are_no_images_are_named_by_position(bad: object) -> None:
    images = load_calibration([image(1), bad], MODEL)
    next(images)
    with pytest.raises(CalibrationError, match="calibration image 1"):
        next(images)


def test_pictures_of_a_folder_are_read_as_they_are_by_name(folder: Path) -> None:
    first, second = load_pictures(folder, 2)
    np.testing.assert_array_equal(first, image(1))
    np.testing.assert_array_equal(second, image(2))
    assert len(load_pictures(folder, 9)) == 3


def test_a_picture_that_cannot_be_read_is_left_out_and_a_folder_of_such_is_refused(folder: Path) -> None:
    (folder / "a.png").write_text("not an image")
    with pytest.warns(UserWarning, match=r"a\.png"):
        np.testing.assert_array_equal(load_pictures(folder, 1)[0], image(2))
    for name in ("b.PNG", "c.png"):
        (folder / name).write_text("not an image")
    with pytest.warns(UserWarning), pytest.raises(CalibrationError, match="none of its image files"):
        load_pictures(folder, 1)
