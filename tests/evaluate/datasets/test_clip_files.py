"""Generated clips as files: a DAVIS folder that says what the clips say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.clips import generate
from tvm_ahcq.evaluate.datasets.clip_files import write_clips
from tvm_ahcq.evaluate.datasets.video_folders import LAYOUTS, read_videos
from tvm_ahcq.evaluate.datasets.video_objects import video_objects

FIRST, COUNT, FRAMES = 11, 3, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "made"
    write_clips(path, FIRST, COUNT, FRAMES, 128)
    return path


def test_the_folder_is_a_davis_set_of_the_objects_of_the_first_frames(folder: Path) -> None:
    data = read_videos(folder)
    assert data.layout is LAYOUTS["davis"]
    assert [video.name for video in data.videos] == ["clip_0000", "clip_0001", "clip_0002"]
    for seed, video in enumerate(data.videos, FIRST):
        clip = generate(seed, FRAMES, 128)
        objects = clip.objects()
        assert [each.number for each in video_objects(video)] == list(range(1, len(objects) + 1))
        assert all(each.first == 0 for each in video_objects(video))
        for frame in range(FRAMES):
            masks = video.read_masks(frame)
            for number, index in enumerate(objects, 1):
                found = masks.get(number, np.zeros(video.size, bool))
                np.testing.assert_array_equal(found, clip.masks(index)[frame])


def test_frames_are_those_of_the_clip_but_for_jpeg(folder: Path) -> None:
    for frame in (0, FRAMES - 1):
        stored = np.asarray(Image.open(folder / "JPEGImages" / "480p" / "clip_0001" / f"{frame:05d}.jpg"))
        difference = np.abs(stored.astype(int) - generate(FIRST + 1, FRAMES, 128).frames[frame])
        assert stored.shape == (128, 128, 3) and difference.mean() < 4


def test_equal_numbers_give_equal_files(folder: Path, tmp_path: Path) -> None:
    write_clips(tmp_path, FIRST, COUNT, FRAMES, 128)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == COUNT * FRAMES * 2 + 1
    assert all((folder / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)
