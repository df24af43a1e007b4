"""Video files: every frame by number against PyAV's own order, writing, damage."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tvm_ahcq.errors import ImageError
from tvm_ahcq.frames import open_frames
from tvm_ahcq.video_file import VideoFile, VideoWriter


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Forty frames of squares that move, with odd sides."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return [np.roll(np.kron(coarse, np.ones((13, 13, 1), np.uint8)), 2 * number, 1) for number in range(40)]


def encode(path: Path, pictures: list[np.ndarray], codec: str = "libx264", **options: str) -> Path:
    """Write with PyAV alone, key frames every twelve frames."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.gop_size = 104, 64, 12
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:64]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """All frames as PyAV gives them from the start."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264"), (".avi", "mpeg4"), (".webm", "libvpx-vp9")],
)
@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_every_frame_is_found_by_number(
    tmp_path: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, suffix: str, codec: str, order: str
) -> None:
    monkeypatch.setattr("tvm_ahcq.video_file._CACHE_BYTES", 0)
    path = encode(tmp_path / f"clip{suffix}", pictures, codec)
    expected, frames = decoded(path), open_frames(path)
    assert len(frames) == len(expected) == 40 and frames.size == (64, 104)
    numbers = {"forward": range(40), "backward": range(39, -1, -1), "random": np.random.default_rng(0).permutation(40)}
    for number in numbers[order]:
        np.testing.assert_array_equal(frames[int(number)], expected[number])
    with pytest.raises(IndexError):
        frames[40]


def test_few_frames_are_kept(tmp_path: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvm_ahcq.video_file._CACHE_BYTES", 6 * 64 * 104 * 3)
    frames = VideoFile(encode(tmp_path / "clip.mp4", pictures))
    for number in range(40):
        frames[number]
    assert len(frames._kept) == 6


def test_what_was_written_is_read_again(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    path = tmp_path / "out.mp4"
    with path.open("wb") as file, VideoWriter(file, path, (65, 104), Fraction(30)) as writer:
        for picture in pictures:
            writer.write(picture)
    frames = VideoFile(path)
    assert len(frames) == 40 and frames.rate == 30 and frames.size == (64, 104)
    for number in (0, 20, 39):
        difference = np.abs(frames[number].astype(int) - pictures[number][:64])
        assert np.median(difference) < 8


def test_a_frame_of_one_pixel_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with path.open("wb") as file, VideoWriter(file, path, (1, 1), Fraction(30)) as writer:
        writer.write(np.full((1, 1, 3), 200, np.uint8))
    assert VideoFile(path)[0].shape == (2, 2, 3)


def test_turned_videos_stand_upright(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    lying = encode(tmp_path / "lying.mp4", pictures[:3])
    # rotation by 90 degrees in the matrix of the track header: (1, 0, 0, 1) becomes (0, 1, -1, 0)
    one, zero, minus = (1 << 16).to_bytes(4, "big"), bytes(4), (2**32 - (1 << 16)).to_bytes(4, "big")
    data = lying.read_bytes()
    start = data.index(b"tkhd") + 4 + 40
    turned = zero + one + zero + minus + zero
    (tmp_path / "turned.mp4").write_bytes(data[:start] + turned + data[start + 20 :])
    frames, plain = VideoFile(tmp_path / "turned.mp4"), decoded(lying)
    assert frames.size == (104, 64)
    np.testing.assert_array_equal(frames[1], np.rot90(plain[1], -1))


@pytest.mark.parametrize(
    ("kept", "options", "message"),
    [
        (0.0, {}, "not complete"),
        (0.5, {}, "not complete"),
        (0.9, {"movflags": "faststart"}, r"of 40 frames, the file is not complete"),
    ],
)
def test_a_truncated_file_is_refused(
    tmp_path: Path, pictures: list[np.ndarray], kept: float, options: dict[str, str], message: str
) -> None:
    path = encode(tmp_path / "clip.mp4", pictures, **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ImageError, match=message):
        open_frames(path)


def test_a_damaged_frame_is_named_and_those_before_it_are_read(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    path = encode(tmp_path / "clip.avi", pictures, "mjpeg")
    whole, places = path.read_bytes(), []
    while (place := whole.find(b"\xff\xd8\xff", places[-1] + 1 if places else 0)) >= 0:
        places.append(place)
    broken = bytearray(whole)
    broken[places[30] : places[31] - 8] = bytes(places[31] - 8 - places[30])
    path.write_bytes(broken)
    frames = open_frames(path)
    assert frames[29].shape == (64, 104, 3)
    with pytest.raises(ImageError, match=r"frame 30 .*damaged"):
        frames[30]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"text\.mp4: not a video"):
        open_frames(tmp_path / "text.mp4")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageError, match=r"pip install 'tvm-ahcq\[video\]'"):
        open_frames(tmp_path / "clip.mp4")
