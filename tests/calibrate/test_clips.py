"""Calibration on videos: which frames are taken, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.calibrate.clips import CLIP_FRAMES, clip_paths, read_clips
from tvm_ahcq.errors import CalibrationError


def write_frames(folder: Path, count: int) -> None:
    """Write frames whose brightness is their number."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((8, 10, 3), number, np.uint8)).save(folder / f"{number:05d}.png")


def test_some_frames_in_a_row_are_taken_of_each_video(tmp_path: Path) -> None:
    for name, count in (("a", 40), ("b", 40), ("short", 2)):
        write_frames(tmp_path / name, count)
    (tmp_path / "notes").mkdir()
    (tmp_path / "list.txt").write_text("a")
    found = [(Path(name).name, frames) for name, frames in read_clips(clip_paths(tmp_path))]
    assert [name for name, _ in found] == ["a", "b", "short"]
    first, second, short = (frames[:, 0, 0, 0].astype(int) for _, frames in found)
    assert len(first) == len(second) == CLIP_FRAMES and list(short) == [0, 1]
    for numbers in (first, second):
        np.testing.assert_array_equal(np.diff(numbers), 1)
    assert first[0] != second[0]  # not all from the start


def test_the_same_frames_are_taken_again(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 30)
    once, again = (next(read_clips(clip_paths(tmp_path)))[1] for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_a_video_that_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path) -> None:
    write_frames(tmp_path / "good", 3)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.warns(UserWarning, match="left out of the calibration: .*bad.mp4"):
        assert len(list(read_clips(clip_paths(tmp_path)))) == 1


def test_videos_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.warns(UserWarning), pytest.raises(CalibrationError, match="none of the 1 videos can be read"):
        list(read_clips(clip_paths(tmp_path)))
