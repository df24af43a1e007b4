"""Frames of folders and arrays: order, laziness, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import ImageError
from tvm_ahcq.frames import FolderFrames, open_frames


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """Twelve frames of noise."""
    return list(np.random.default_rng(0).integers(0, 256, (12, 20, 30, 3), dtype=np.uint8))


def save(folder: Path, pictures: list[np.ndarray], name: str = "{}.png") -> Path:
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / name.format(number))
    return folder


@pytest.mark.parametrize("name", ["{}.png", "{:05d}.png", "frame{}.PNG"])
def test_files_come_in_the_order_of_their_numbers(tmp_path: Path, pictures: list[np.ndarray], name: str) -> None:
    frames = open_frames(save(tmp_path, pictures, name))
    (tmp_path / "notes.txt").write_text("no frame")
    assert len(frames) == 12 and frames.size == (20, 30)
    for number in (0, 11, 10, 2, 2):
        np.testing.assert_array_equal(frames[number], pictures[number])


def test_arrays_are_taken_as_they_come(pictures: list[np.ndarray]) -> None:
    def one_by_one() -> Iterator[np.ndarray]:
        yield from pictures

    for video in (pictures, np.stack(pictures), one_by_one()):
        frames = open_frames(video)
        assert len(frames) == 12 and frames.size == (20, 30)
        np.testing.assert_array_equal(frames[7], pictures[7])


def test_a_sequence_is_read_when_a_frame_is_needed(pictures: list[np.ndarray]) -> None:
    class Lazy:
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, number: int) -> np.ndarray:
            self.read.append(number)
            return pictures[number % 12]

    lazy = Lazy()
    frames = open_frames(lazy)
    np.testing.assert_array_equal(frames[999_999], pictures[3])
    assert len(frames) == 10**6 and lazy.read == [0, 999_999]


def test_frames_are_taken_as_they_are(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    frames = FolderFrames(save(tmp_path, pictures))
    assert open_frames(frames) is frames


def test_what_is_no_video_is_refused(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    for video, message in (
        (tmp_path, "has no frames"),
        (tmp_path / "missing.mp4", "no such file or folder"),
        ([], "has no frames"),
        ([pictures[0].astype(float)], "uint8"),
        (5, "expected a video"),
    ):
        with pytest.raises(ImageError, match=message):
            open_frames(video)


def test_frames_of_different_sizes_are_refused(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    save(tmp_path, [pictures[0], pictures[1][:10]])
    with pytest.raises(ImageError, match=r"1\.png has 30 x 10 pixels .*0\.png has 30 x 20"):
        open_frames(tmp_path)
    frames = open_frames([pictures[0], pictures[1][:10]])
    with pytest.raises(ImageError, match="frame 1 has 30 x 10"):
        frames[1]


def test_a_truncated_file_is_named_when_it_is_read(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    save(tmp_path, pictures, "{}.jpg")
    whole = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(whole[: len(whole) - 100])
    frames = open_frames(tmp_path)
    assert frames[2].shape == (20, 30, 3)
    with pytest.raises(ImageError, match=r"3\.jpg: cannot be read"):
        frames[3]
    (tmp_path / "3.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"3\.jpg: not an image"):
        open_frames(tmp_path)


def test_turned_photographs_have_the_size_that_they_show(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures[0]).save(tmp_path / "0.jpg", exif=exif)
    frames = open_frames(tmp_path)
    assert frames.size == (30, 20) and frames[0].shape == (30, 20, 3)
