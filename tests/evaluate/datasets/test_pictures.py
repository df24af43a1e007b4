"""Picture files of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.pictures import extent, load_picture, picture_files, picture_sizes

STORED = np.random.default_rng(0).integers(0, 255, (6, 10, 3), np.uint8)


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A picture that is stored lying, with an EXIF orientation that puts it upright."""
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(STORED).save(path, exif=exif)
    return path


def test_a_turned_picture_has_two_sizes(turned: Path) -> None:
    assert picture_sizes(turned) == ((10, 6), (6, 10))


def test_a_picture_is_read_the_way_it_was_annotated(turned: Path) -> None:
    np.testing.assert_array_equal(load_picture(turned, (6, 10)), STORED)
    np.testing.assert_array_equal(load_picture(turned, (10, 6)), np.rot90(STORED, -1))
    with pytest.raises(EvaluationError, match="10 x 6 pixels, its annotation 11 x 6"):
        load_picture(turned, (6, 11))


def test_files_are_found_by_stem_in_order_and_others_left_out(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.tif"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "._a.png").write_text("what some systems leave behind")
    (tmp_path / "more.png").mkdir()
    assert [(stem, path.name) for stem, path in picture_files(tmp_path).items()] == [
        ("a", "a.png"),
        ("b", "b.JPG"),
        ("c", "c.tif"),
    ]


def test_what_is_no_folder_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such folder"):
        picture_files(tmp_path / "absent")
    with pytest.raises(EvaluationError, match="no picture files"):
        picture_files(tmp_path)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(EvaluationError, match=r"text\.png: not an image"):
        picture_sizes(tmp_path / "text.png")
    with pytest.raises(EvaluationError, match="no such file"):
        picture_sizes(tmp_path / "absent.png")
    with pytest.raises(EvaluationError, match="is not a folder"):
        picture_files(tmp_path / "text.png")
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(EvaluationError, match=r"text\.jpg and text\.png have the same name"):
        picture_files(tmp_path)


def test_sizes_are_said_width_first() -> None:
    assert extent((480, 640)) == "640 x 480"
