"""Predicted masks as files: their formats, when they are complete, and folders that are not ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.video_folders import Video, read_videos
from tvm_ahcq.evaluate.datasets.vos_predictions import RECORD, PredictionFolder, davis_palette

MADE_BY = {"bundle_sha256": "ab", "metric": "official"}


@pytest.fixture
def video(video_set: Callable) -> Video:
    return read_videos(video_set("davis")).videos[0]


@pytest.fixture
def masks(video: Video) -> dict[int, np.ndarray]:
    """Masks of three objects that overlap."""
    rng = np.random.default_rng(0)
    return {number: rng.random(video.size) < 0.4 for number in (1, 2, 9)}


def test_the_palette_is_that_of_davis() -> None:
    colours = [tuple(davis_palette()[3 * index : 3 * index + 3]) for index in range(256)]
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 7: (128, 128, 128)}
    known |= {8: (64, 0, 0), 9: (192, 0, 0), 16: (0, 64, 0), 64: (32, 0, 0), 254: (96, 224, 192), 255: (224, 224, 192)}
    assert {index: colours[index] for index in known} == known and len(set(colours)) == 256


def test_a_shared_png_has_numbers_and_the_palette_and_the_lowest_number_wins(
    tmp_path: Path, video: Video, masks: dict[int, np.ndarray]
) -> None:
    folder = PredictionFolder(tmp_path / "p", per_object=False)
    folder.write(video, 3, masks)
    picture = Image.open(tmp_path / "p" / "walk" / "00003.png")
    assert picture.mode == "P" and bytes(picture.getpalette() or ()) == davis_palette()
    expected = np.select([masks[1], masks[2], masks[9]], [1, 2, 9], 0)
    np.testing.assert_array_equal(np.asarray(picture), expected)
    assert {number: (mask.sum()) for number, mask in folder.read(video, 3, [1, 2, 9, 4]).items()} == {
        number: (expected == number).sum() for number in (1, 2, 9, 4)
    }


def test_objects_have_files_of_their_own_where_they_may_overlap(
    tmp_path: Path, video: Video, masks: dict[int, np.ndarray]
) -> None:
    folder = PredictionFolder(tmp_path / "p", per_object=True)
    folder.write(video, 0, masks)
    for number, mask in masks.items():
        stored = np.asarray(Image.open(tmp_path / "p" / "walk" / f"{number:03d}" / "00000.png"))
        np.testing.assert_array_equal(stored, mask.astype(np.uint8))
        np.testing.assert_array_equal(folder.read(video, 0, masks)[number], mask)


@pytest.mark.parametrize("per_object", [False, True])
def test_a_video_is_complete_when_every_file_is_whole_and_of_its_size(
    per_object: bool, tmp_path: Path, video: Video, masks: dict[int, np.ndarray]
) -> None:
    folder = PredictionFolder(tmp_path / "p", per_object)
    for frame in range(9):
        assert not folder.is_complete(video, masks)
        folder.write(video, frame, masks)
    assert folder.is_complete(video, masks)
    path = sorted((tmp_path / "p" / "walk").rglob("00005.png"))[-1]
    content = path.read_bytes()
    for damaged in (content[:-1], content[:40], b""):
        path.write_bytes(damaged)
        assert not folder.is_complete(video, masks)
    Image.new("L", (20, 20)).save(path)
    assert not folder.is_complete(video, masks)
    path.unlink()
    assert not folder.is_complete(video, masks)
    folder.write(video, 5, masks)
    assert folder.is_complete(video, masks)
    assert folder.is_complete(video, [*masks, 3]) is not per_object


def test_a_folder_remembers_what_made_its_predictions(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path / "a" / "b", per_object=False)
    folder.claim(MADE_BY)
    folder.claim(dict(MADE_BY))
    with pytest.raises(EvaluationError, match=r"made otherwise \(metric: official, now ahcq-sam\)"):
        folder.claim({**MADE_BY, "metric": "ahcq-sam"})
    (tmp_path / "a" / "b" / RECORD).write_text("{")
    with pytest.raises(EvaluationError, match=f"{RECORD} is damaged"):
        folder.claim(MADE_BY)


def test_a_folder_with_predictions_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "walk").mkdir()
    with pytest.raises(EvaluationError, match=r"no predictions\.json that says which model made them"):
        PredictionFolder(tmp_path, per_object=False).claim(MADE_BY)
    assert not (tmp_path / RECORD).exists()


def test_a_place_that_cannot_be_written_to_is_refused(
    tmp_path: Path, video: Video, masks: dict[int, np.ndarray]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match=r"file/p: predictions cannot be written there: Not a directory"):
        PredictionFolder(tmp_path / "file" / "p", per_object=False).claim(MADE_BY)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "walk").write_text("")
    with pytest.raises(EvaluationError, match=r"00000\.png: the prediction cannot be written: "):
        PredictionFolder(tmp_path / "p", per_object=False).write(video, 0, masks)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_write_protected_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir(mode=0o555)
    with pytest.raises(EvaluationError, match="cannot be written there"):
        PredictionFolder(tmp_path / "p", per_object=False).claim(MADE_BY)


def test_a_number_that_does_not_fit_into_a_png_is_refused(
    tmp_path: Path, video: Video, masks: dict[int, np.ndarray]
) -> None:
    folder = PredictionFolder(tmp_path, per_object=False)
    with pytest.raises(EvaluationError, match="walk: object 255 does not fit into a PNG"):
        folder.write(video, 0, {255: masks[1]})
