"""``track`` refuses what cannot work in one line, before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.cli.main import main
from tvm_ahcq.cli.track_arguments import VIDEO_SUFFIXES
from tvm_ahcq.video_file import CONTAINERS


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A folder of three frames of 30 x 20 pixels."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((20, 30, 3), 80 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A file that is no bundle: it must not be read before everything else is checked."""
    path = tmp_path / "m.ahcq"
    path.write_bytes(b"no bundle")
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing was asked for"),
        (["--point", "5,5"], "nothing would be written"),
        (["--point", "5", "-o", "{out}"], "expected X,Y"),
        (["--point", "5,5@x", "-o", "{out}"], "expected X,Y"),
        (["--point", "5,5@3", "-o", "{out}"], "the video has 3 frames, 0 to 2"),
        (["--point", "31,5@2", "-o", "{out}"], "frame 2: point 0 at (31, 5) lies outside"),
        (["--box", "5,5,31,9", "-o", "{out}"], "lies outside"),
        (["--box", "5,5,4,9", "-o", "{out}"], "expected X0,Y0,X1,Y1"),
        (["--mask", "{missing}", "-o", "{out}"], "no such file"),
        (["--mask", "{small}", "-o", "{out}"], "expected the same size"),
        (["--mask", "{fitting}", "--point", "5,5", "-o", "{out}"], "--object starts another object"),
        (["--point", "5,5", "-o", "{missing}/out.mp4"], "does not exist"),
        (["--point", "5,5", "-o", "{missing}/out"], "does not exist"),
        (["--point", "5,5", "-o", "{out}.png"], "looks like a file, expected a folder"),
        (["--point", "5,5", "--masks-out", "{missing}/out"], "does not exist"),
        (["--point", "5,5", "--masks-out", "{out}.json"], "need --format coco"),
        (["--point", "5,5", "--masks-out", "{video}"], "would overwrite"),
        (["--point", "5,5", "--masks-out", "{video}", "--format", "coco"], "is a folder"),
        (["--point", "5,5", "-o", "{out}", "--masks-out", "{out}"], "would overwrite"),
        (["--point", "5,5", "-o", "{out}", "--frames", "0"], "expected 1, 2, 3"),
        (["--point", "5,5", "-o", "{out}"], "m.ahcq"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    bundle: Path, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    for name, size in (("small", (4, 4)), ("fitting", (20, 30))):
        Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / f"{name}.png")
    names = {"out": tmp_path / "out", "missing": tmp_path / "missing", "video": video}
    names |= {name: tmp_path / f"{name}.png" for name in ("small", "fitting")}
    try:
        status = main(["track", str(bundle), str(video), *[word.format(**names) for word in words]])
    except SystemExit as error:  # argparse
        status = int(error.code or 0)
    error_text = capfd.readouterr().err
    assert status == 2 and message in " ".join(error_text.split()) and error_text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_videos_are_the_files_that_can_be_written() -> None:
    assert set(VIDEO_SUFFIXES) == set(CONTAINERS)


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["track", "--help"])
    text = capsys.readouterr().out
    for part in ("examples:", "--object", "@FRAME", "tvm-ahcq[video]", "Frames count from 0"):
        assert part in text
