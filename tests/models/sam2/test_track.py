"""The command ``track`` and what it writes, with a predictor in place of a bundle."""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tvm_ahcq.cli import track
from tvm_ahcq.cli.arguments import Parser
from tvm_ahcq.cli.track_prompts import check_prompts
from tvm_ahcq.errors import ImageError
from tvm_ahcq.frames import open_frames

Run = Callable[..., None]

PROMPTS = ("--box", "10,10,80,70@10", "--object", "--point", "90,60@12", "--point", "20,20,0@12")


def parsed(*words: object) -> argparse.Namespace:
    """The arguments of the command."""
    parser = Parser()
    track.add_parser(parser.add_subparsers())
    return parser.parse_args(["track", *map(str, words)])


@pytest.fixture
def run(video_pair: Any, clip_folder: Path, tmp_path: Path) -> Run:
    """Function of what follows the video on the command line: everything but loading the bundle."""
    _, predictor = video_pair()
    bundle = tmp_path / "m.ahcq"
    bundle.write_bytes(b"")

    def command(*words: object, video: Path = clip_folder) -> None:
        args = parsed(bundle, video, *words)
        track._check(args)
        frames = open_frames(args.video)
        track.track(args, predictor, frames, check_prompts(args.prompts, frames))

    return command


@pytest.fixture
def expected(video_pair: Any, clip_folder: Path) -> np.ndarray:
    """What the predictor itself says to ``PROMPTS``: ``(20, 2, 90, 120)`` bool."""
    _, predictor = video_pair()
    state = predictor.init_state(clip_folder)
    predictor.add_new_points_or_box(state, 10, 1, box=[10, 10, 80, 70])
    predictor.add_new_points_or_box(state, 12, 2, points=[[90, 60], [20, 20]], labels=[1, 0])
    found: dict[int, np.ndarray] = {}
    for reverse in (True, False):
        found |= {frame: masks[:, 0] > 0 for frame, _, masks in predictor.propagate_in_video(state, reverse=reverse)}
    return np.stack([found[frame] for frame in range(20)])


def test_masks_of_all_frames_are_written_as_labels(run: Run, expected: np.ndarray, tmp_path: Path) -> None:
    run(*PROMPTS, "--masks-out", tmp_path / "masks")
    files = sorted((tmp_path / "masks").iterdir())
    assert [file.name for file in files] == [f"{frame:05d}.png" for frame in range(20)]
    for frame, file in enumerate(files):
        labels = np.where(expected[frame, 0], 1, np.where(expected[frame, 1], 2, 0))
        with Image.open(file) as picture:
            np.testing.assert_array_equal(np.asarray(picture), labels)


def test_masks_are_written_as_run_lengths(run: Run, expected: np.ndarray, tmp_path: Path) -> None:
    run(*PROMPTS, "--masks-out", tmp_path / "masks.json", "--format", "coco")
    found = json.loads((tmp_path / "masks.json").read_text())["annotations"]
    assert [(each["frame"], each["object"]) for each in found] == [(i, k) for i in range(20) for k in (1, 2)]
    for each in found:
        mask = coco.decode({**each["segmentation"], "counts": each["segmentation"]["counts"].encode()})
        np.testing.assert_array_equal(mask, expected[each["frame"], each["object"] - 1])
        assert each["area"] == mask.sum()


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (("--direction", "forward"), range(10, 20)),
        (("--direction", "backward"), range(11)),
        (("--frames", "3"), range(7, 14)),
    ],
)
def test_part_of_a_video_can_be_tracked(run: Run, tmp_path: Path, options: tuple[str, ...], frames: range) -> None:
    run("--box", "10,10,80,70@10", "--masks-out", tmp_path / "masks", *options)
    assert sorted(int(file.stem) for file in (tmp_path / "masks").iterdir()) == list(frames)


def test_a_video_is_drawn_and_its_first_frame_can_be_tracked_again(run: Run, tmp_path: Path) -> None:
    run(*PROMPTS, "-o", tmp_path / "out.mp4")
    frames = open_frames(tmp_path / "out.mp4")
    assert len(frames) == 20 and frames.size == (90, 120)
    run("--point", "60,40", "-o", tmp_path / "again", "--frames", "1", video=tmp_path / "out.mp4")
    assert sorted(file.name for file in (tmp_path / "again").iterdir()) == ["00000.jpg", "00001.jpg"]


def test_a_mask_shows_an_object(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((90, 120), np.uint8)
    mask[20:60, 30:80] = 3
    Image.fromarray(mask).save(tmp_path / "first@home.png")
    run("--mask", f"{tmp_path / 'first@home.png'}@4", "-o", tmp_path / "out", "--frames", "1")
    assert "object 1" in capsys.readouterr().out
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_what_was_tracked_before_a_damaged_frame_is_kept(
    run: Run, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for file in clip_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    whole = (folder / "00007.jpg").read_bytes()
    (folder / "00007.jpg").write_bytes(whole[:-500])
    with pytest.raises(ImageError, match=r"00007\.jpg: cannot be read"):
        run("--point", "60,40", "-o", tmp_path / "out.mp4", "--masks-out", tmp_path / "masks", video=folder)
    assert len(open_frames(tmp_path / "out.mp4")) == len(list((tmp_path / "masks").iterdir())) == 7
    assert "7 frames" in capsys.readouterr().out


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files may have 500 bytes at most, as on a disk that is full."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[0][1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
    signal.signal(signal.SIGXFSZ, before[1])


@pytest.mark.parametrize(
    ("option", "name", "form"),
    [("-o", "out.mp4", "png"), ("-o", "out", "png"), ("--masks-out", "masks.json", "coco")],
)
def test_a_full_disk_is_named_and_leaves_the_file_that_was_there(
    run: Run, tmp_path: Path, option: str, name: str, form: str, full_disk: None
) -> None:
    target = tmp_path / name
    if target.suffix:
        target.write_bytes(b"before")
    with pytest.raises(ImageError, match=rf"{name}.*: cannot be written: File too large"):
        run("--point", "60,40", option, target, "--format", form)
    if target.suffix:
        assert target.read_bytes() == b"before"
    assert not list(tmp_path.rglob("*.tmp"))
