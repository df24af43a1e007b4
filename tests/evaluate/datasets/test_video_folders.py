"""Folders of DAVIS 2017, SA-V and MOSE: what is found in them, and what is refused before any work starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.evaluate.datasets.video_folders import LAYOUTS, read_videos
from tvm_ahcq.evaluate.datasets.video_objects import video_objects

MASKS = {"davis": "Annotations/480p/run", "sav": "Annotations_6fps/run/002", "mose": "Annotations/run"}
"""A folder of masks in each layout."""


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_layouts_are_told_apart_and_read(dataset: str, video_set: Callable, clip_masks: Callable) -> None:
    data = read_videos(video_set(dataset))
    assert data.layout is LAYOUTS[dataset]
    order = ["run", "walk"] if dataset == "mose" else ["walk", "run"]
    assert [video.name for video in data.videos] == order
    walk = next(video for video in data.videos if video.name == "walk")
    _, masks = clip_masks(3, 21 if dataset == "sav" else 9)
    assert len(walk.frames) == len(masks[1]) and walk.frames[8] == "00008" and walk.size == (112, 128)
    assert walk.annotated() == ([0, 4, 8, 12, 16, 20] if dataset == "sav" else list(range(9)))
    found = walk.read_masks(8)
    assert found.keys() == {n for n in masks if dataset == "sav" or masks[n][8].any()}
    for number in found:
        expected = (
            np.logical_or.reduce([each[8] for each in masks.values()]) if dataset == "sav" and number == 1 else None
        )
        np.testing.assert_array_equal(found[number], masks[number][8] if expected is None else expected)


def test_a_list_and_a_limit_choose_videos(video_set: Callable, tmp_path: Path) -> None:
    root = video_set("davis")
    assert [video.name for video in read_videos(root, limit=1).videos] == ["walk"]
    (tmp_path / "mine.txt").write_text("run\n\n")
    assert [video.name for video in read_videos(root, video_list=tmp_path / "mine.txt").videos] == ["run"]
    (root / "ImageSets" / "2017" / "val.txt").unlink()
    assert [video.name for video in read_videos(root).videos] == ["run", "walk"]


def test_void_is_no_object(video_set: Callable) -> None:
    root = video_set("davis")
    path = root / MASKS["davis"] / "00003.png"
    labels = np.array(Image.open(path))
    labels[:5] = 255
    Image.fromarray(labels).save(path)
    video = read_videos(root).videos[1]
    assert 255 not in video.read_masks(3) and video.read_masks(3).keys() == set(np.unique(labels)) - {0, 255}


def test_objects_start_on_the_first_frame_that_shows_them(
    tmp_path: Path, add_video: Callable, clip_masks: Callable
) -> None:
    frames, masks = clip_masks(3)
    late, never = sorted(masks)[-2:]
    masks[late][:4], masks[never][:] = False, False
    add_video(tmp_path / "m", "mose", "walk", frames, masks)
    (video,) = read_videos(tmp_path / "m").videos
    found = {each.number: each for each in video_objects(video)}
    assert found.keys() == set(masks) - {never}
    assert found[late].first == 4 and found[late].annotated == tuple(range(9))
    assert found[late].shown == tuple(frame for frame in range(4, 9) if masks[late][frame].any())
    add_video(tmp_path / "s", "sav", "walk", frames, masks)
    (video,) = read_videos(tmp_path / "s").videos
    found = {each.number: each for each in video_objects(video)}
    assert found.keys() == set(masks) - {never}
    assert (found[late].first, found[late].annotated, found[late].shown) == (4, (0, 4, 8), (0, 4, 8))


def cut(path: Path) -> None:
    """Cut a file off in its middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_truncated_mask_is_refused(dataset: str, video_set: Callable) -> None:
    root = video_set(dataset)
    cut(root / MASKS[dataset] / "00008.png")
    with pytest.raises(EvaluationError, match=r"00008\.png: not a mask that can be read"):
        read_videos(root)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_mask_of_another_size_is_refused_with_both_sizes(dataset: str, video_set: Callable) -> None:
    root = video_set(dataset)
    Image.new("L", (64, 48), 1).save(root / MASKS[dataset] / "00004.png")
    with pytest.raises(EvaluationError, match=r"00004\.png is 64 x 48 pixels, the frame .*00000\.jpg 128 x 112"):
        read_videos(root)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_mask_without_a_frame_is_refused(dataset: str, video_set: Callable) -> None:
    root = video_set(dataset)
    (root / LAYOUTS[dataset].folders[0][0] / "run" / "00004.jpg").unlink()
    with pytest.raises(EvaluationError, match=r"00004\.png: there is no frame 00004\.jpg"):
        read_videos(root)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_video_without_masks_is_refused(dataset: str, video_set: Callable) -> None:
    root = video_set(dataset)
    for path in (root / MASKS[dataset]).glob("*.png"):
        path.unlink()
    with pytest.raises(EvaluationError, match=r"run.*: no masks in it; expected 00000\.png"):
        read_videos(root)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_masks_that_show_nothing_are_refused(dataset: str, video_set: Callable) -> None:
    root = video_set(dataset)
    for path in (root / LAYOUTS[dataset].folders[0][1] / "run").rglob("*.png"):
        Image.new("L", (128, 112)).save(path)
    with pytest.raises(EvaluationError, match="run: no mask shows an object"):
        read_videos(root)


def test_a_missing_folder_is_refused_and_the_expected_ones_are_named(tmp_path: Path, video_set: Callable) -> None:
    with pytest.raises(EvaluationError, match="absent: no such folder"):
        read_videos(tmp_path / "absent")
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(EvaluationError, match=r"DAVIS 2017: JPEGImages/480p and Annotations/480p; SA-V: .*; MOSE: "):
        read_videos(tmp_path)
    with pytest.raises(EvaluationError, match=r"expected SA-V: JPEGImages_24fps and Annotations_6fps$"):
        read_videos(video_set("davis"), "sav")
    with pytest.raises(EvaluationError, match="unknown data set 'ytvos'; expected one of davis, sav, mose"):
        read_videos(tmp_path, "ytvos")


@pytest.mark.parametrize("name", ["swim", "../run", "/run"])
def test_a_list_that_names_an_absent_video_is_refused(name: str, video_set: Callable) -> None:
    root = video_set("davis")
    (root / "ImageSets" / "2017" / "val.txt").write_text(f"walk\n{name}\n")
    with pytest.raises(EvaluationError, match=f"video {name}: there is no folder .* with its frames"):
        read_videos(root)


@pytest.mark.parametrize("text, words", [("", "no video in it"), ("walk\nrun\nwalk\n", "names walk twice")])
def test_a_list_without_videos_or_with_one_twice_is_refused(text: str, words: str, video_set: Callable) -> None:
    root = video_set("davis")
    (root / "ImageSets" / "2017" / "val.txt").write_text(text)
    with pytest.raises(EvaluationError, match=words):
        read_videos(root)
    (root / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluationError, match=r"bytes\.txt: the list of videos cannot be read"):
        read_videos(root, video_list=root / "bytes.txt")


def test_names_that_are_no_numbers_are_refused(video_set: Callable) -> None:
    root = video_set("sav")
    (root / "Annotations_6fps" / "run" / "dog").mkdir()
    with pytest.raises(EvaluationError, match="dog: the name of an object's folder must be its number"):
        read_videos(root)
    (root / "Annotations_6fps" / "run" / "dog").rmdir()
    frames = root / "JPEGImages_24fps" / "run"
    (frames / "00000.jpg").rename(frames / "first.jpg")
    with pytest.raises(EvaluationError, match=r"first\.jpg: the name of a file of frames must be its number"):
        read_videos(root)
    (frames / "first.jpg").rename(frames / "1.jpg")
    with pytest.raises(EvaluationError, match="have the same number"):
        read_videos(root)


def test_frames_that_are_no_jpegs_are_refused(video_set: Callable) -> None:
    root = video_set("mose")
    for path in (root / "JPEGImages" / "run").iterdir():
        path.rename(path.with_suffix(".png"))
    with pytest.raises(EvaluationError, match=r"run: no frames in it; expected 00000\.jpg"):
        read_videos(root)


def test_a_mask_of_more_than_8_bits_is_refused(video_set: Callable) -> None:
    root = video_set("mose")
    Image.fromarray(np.full((112, 128), 300, np.uint16)).save(root / MASKS["mose"] / "00000.png")
    with pytest.raises(EvaluationError, match=r"00000\.png: has values up to 300; expected 8 bits"):
        read_videos(root)
