"""Masks in folders: which belongs to which picture, and what their pixels mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.mask_folder import load_labels, object_labels, read_mask_folder

LABELS = np.zeros((16, 24), np.uint8)
LABELS[:8, :8], LABELS[8:, 8:16] = 1, 3


def test_pictures_and_masks_are_paired_by_name(mask_set: Path) -> None:
    Image.new("RGB", (5, 5)).save(mask_set / "images" / "without.jpg")
    folder = read_mask_folder(mask_set / "images", mask_set / "masks")
    assert [(pair.image.stem, pair.mask.stem, pair.size) for pair in folder.pairs] == [
        (name, name, (128, 128)) for name in "012"
    ]
    assert folder.unmasked == 1
    assert len(read_mask_folder(mask_set / "images", mask_set / "masks", limit=2).pairs) == 2


def test_a_mask_of_another_size_is_refused_with_both_files_and_sizes(mask_set: Path) -> None:
    Image.fromarray(LABELS).save(mask_set / "masks" / "1.png")
    with pytest.raises(EvaluationError) as refused:
        read_mask_folder(mask_set / "images", mask_set / "masks")
    for part in ("masks/1.png is 24 x 16", "images/1.png 128 x 128"):
        assert part in str(refused.value)


def test_a_mask_without_a_picture_is_refused(mask_set: Path) -> None:
    (mask_set / "images" / "2.png").rename(mask_set / "images" / "two.png")
    with pytest.raises(EvaluationError, match=r"masks/2\.png: there is no picture 2\.\*"):
        read_mask_folder(mask_set / "images", mask_set / "masks")


@pytest.mark.parametrize(
    "mode, name",
    [
        ("L", "m.png"),
        ("P", "m.png"),
        ("I;16", "m.tif"),
        ("I", "m.tif"),
        ("RGB", "m.bmp"),
        ("RGBA", "m.png"),
        ("LA", "m.png"),
    ],
)
def test_labels_are_read_from_every_kind_of_picture(mode: str, name: str, tmp_path: Path) -> None:
    image = Image.fromarray(LABELS)
    if mode == "P":
        image.putpalette([value for number in range(256) for value in (number * 37 % 256, number, 255 - number)])
    elif mode.startswith("I"):
        image = Image.fromarray(LABELS.astype(np.uint16 if mode == "I;16" else np.int32))
    else:
        image = image.convert(mode)
    assert image.mode == mode
    image.save(tmp_path / name)
    np.testing.assert_array_equal(load_labels(tmp_path / name), LABELS)


def test_sixteen_bits_hold_labels_beyond_255(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.uint16) * 1000).save(tmp_path / "m.png")
    assert object_labels(load_labels(tmp_path / "m.png")) == [1000, 3000]


@pytest.mark.parametrize("value", [1, 255])
def test_a_binary_mask_is_one_object_whatever_its_value(value: int, tmp_path: Path) -> None:
    Image.fromarray((LABELS > 0) * np.uint8(value)).save(tmp_path / "m.png")
    assert object_labels(load_labels(tmp_path / "m.png")) == [value]
    Image.fromarray(LABELS > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(load_labels(tmp_path / "bits.png"), LABELS > 0)


def test_a_jpeg_mask_is_black_and_white_in_spite_of_its_smears(tmp_path: Path) -> None:
    mask = np.roll(LABELS > 0, 3, axis=1)  # its outlines cut through JPEG's blocks of 8 pixels
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "m.jpg", quality=70)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "m.jpg")))) > 2
    np.testing.assert_array_equal(load_labels(tmp_path / "m.jpg"), mask)


def test_what_has_no_labels_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(EvaluationError, match="colour picture"):
        load_labels(tmp_path / "colour.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(EvaluationError, match="whole numbers"):
        load_labels(tmp_path / "float.tif")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(EvaluationError, match="not a mask"):
        load_labels(tmp_path / "text.png")
    with pytest.raises(EvaluationError, match="no such file"):
        load_labels(tmp_path / "absent.png")


def test_void_is_no_object() -> None:
    assert object_labels(np.array([[0, 255], [4, 2]]), void=255) == [2, 4]
    assert object_labels(np.array([[0, 255], [4, 2]])) == [2, 4, 255]
