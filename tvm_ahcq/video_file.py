"""Video files through PyAV: frames by number, and writing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from tvm_ahcq.errors import ImageError

_CACHE_BYTES = 256 * 2**20
"""Of decoded frames that are kept, so that reading backwards does not decode from a key frame for each."""

_LEAST_CACHED = 4
"""Frames that are kept, however large they are."""

_CODECS = ("libx264", "h264", "mpeg4")
"""Encoders, the best first; not every build of FFmpeg has them all."""

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes of video files that can be written, and their formats."""

DEFAULT_RATE = Fraction(24)
"""Frames a second where the source does not say."""


def require_av(purpose: str) -> Any:
    """Return the package ``av``.

    Raises
    ------
    ImageError
        It is not installed; says what to do.
    """
    try:
        import av
    except ImportError as error:
        raise ImageError(
            f"{purpose} needs the package av, which is not installed; pip install 'tvm-ahcq[video]', "
            "or use a folder of JPEG or PNG files"
        ) from error
    return av


class VideoFile:
    """Frames of a video file, decoded when they are needed.

    The file is scanned once for the time stamps of its frames, without decoding. A frame is then decoded from the key
    frame before it, or from where the last one was.

    Parameters
    ----------
    path : path-like
        A file that FFmpeg can read; its first video stream is taken.

    Attributes
    ----------
    size : tuple of int
        Height and width, as shown.
    rate : Fraction
        Frames a second.

    Raises
    ------
    ImageError
        The file is unreadable, damaged or has no video; or ``av`` is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._av = require_av(f"{path}: reading a video file")
        self._open()
        self._times = self._scan()
        self._numbers = {time: number for number, time in enumerate(self._times)}
        self.rate = Fraction(self._stream.average_rate or DEFAULT_RATE)
        self._kept: dict[int, np.ndarray] = {}
        self._decoder: Iterator[tuple[int, np.ndarray]] = iter(())
        self._next = -1
        self.size: tuple[int, int] = (0, 0)
        first = self[0]
        self.size = (first.shape[0], first.shape[1])

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self._times):
            raise IndexError(number)
        if number not in self._kept:
            with _explained(self._av, f"{self.path}: frame {number} cannot be decoded, the file is damaged"):
                self._read(number)
        return self._kept[number]

    def _open(self) -> None:
        with _explained(self._av, f"{self.path}: not a video that can be read, or not complete"):
            self._container = self._av.open(str(self.path))
        if not self._container.streams.video:
            raise ImageError(f"{self.path}: has no video stream; expected a video file or a folder of pictures")
        self._stream = self._container.streams.video[0]

    def _scan(self) -> list[int]:
        """Return the time stamps of all frames in the order in which they are shown."""
        with _explained(self._av, f"{self.path}: cannot be read to its end"):
            packets = [(packet.pts, packet.is_discard) for packet in self._container.demux(self._stream) if packet.size]
        announced = self._stream.frames
        if not packets:
            raise ImageError(f"{self.path}: has no frames; the file is empty or not complete, copy it again")
        if len(packets) < announced:
            raise ImageError(
                f"{self.path}: has {len(packets)} of {announced} frames, the file is not complete; copy it again, or "
                f"save what is there with ffmpeg -i {self.path.name} whole.mp4"
            )
        times = {time for time, discarded in packets if time is not None and not discarded}
        if len(times) < sum(not discarded for _, discarded in packets):
            raise ImageError(
                f"{self.path}: frames have no time stamps of their own, so they cannot be found by number; convert it "
                f"with ffmpeg -i {self.path.name} converted.mp4"
            )
        return sorted(times)

    def _read(self, number: int) -> None:
        """Decode up to a frame: onward if it is ahead and near, else from a key frame, or from the start."""
        onward = self._next <= number <= self._next + _LEAST_CACHED
        for way in ("onward", "seek", "open") if onward else ("seek", "open"):
            if way == "open":  # not every container can seek to its first key frame
                self._open()
            elif way == "seek":
                self._container.seek(self._times[number], stream=self._stream, backward=True)
            if way != "onward":
                self._decoder = self._decode()
            for found, image in self._decoder:
                self._keep(found, image)
                self._next = found + 1
                if found == number:
                    return
                if found > number:
                    break
        raise ImageError(f"{self.path}: frame {number} is missing, the file is damaged; convert it with ffmpeg first")

    def _decode(self) -> Iterator[tuple[int, np.ndarray]]:
        for frame in self._container.decode(self._stream):
            number = self._numbers.get(frame.pts)
            if number is not None:
                image = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield number, np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _keep(self, number: int, image: np.ndarray) -> None:
        if any(self.size) and image.shape[:2] != self.size:
            raise ImageError(
                f"{self.path}: frame {number} has {image.shape[1]} x {image.shape[0]} pixels, frame 0 has "
                f"{self.size[1]} x {self.size[0]}; expected one size"
            )
        self._kept.pop(number, None)
        self._kept[number] = image
        while len(self._kept) > max(_LEAST_CACHED, _CACHE_BYTES // image.nbytes):
            del self._kept[next(iter(self._kept))]


class VideoWriter:
    """Writes frames to a video file; as a context manager, it finishes the file, or discards it after an error.

    Parameters
    ----------
    file : binary file
        To write to.
    path : path-like
        Its name, for messages, and for the format: one of ``CONTAINERS``.
    size : tuple of int
        Height and width of the frames; a last odd row or column is left out, which the colour format asks for.
    rate : Fraction
        Frames a second.

    Raises
    ------
    ImageError
        ``av`` is missing, or cannot write such a file.
    """

    def __init__(self, file: IO[bytes], path: str | os.PathLike[str], size: tuple[int, int], rate: Fraction) -> None:
        self._av = require_av(f"{path}: writing a video file")
        self._problem = f"{path}: cannot be written"
        self._height, self._width = (max(2, length // 2 * 2) for length in size)
        codec = next((name for name in _CODECS if _encodes(self._av, name)), None)
        if codec is None:
            raise ImageError(f"FFmpeg has none of the encoders {', '.join(_CODECS)}; write a folder of JPEGs instead")
        with _explained(self._av, self._problem):
            self._container = self._av.open(file, mode="w", format=CONTAINERS[Path(path).suffix.lower()])
            self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = self._width, self._height, "yuv420p"
        if codec == "libx264":
            self._stream.options = {"crf": "18", "preset": "veryfast"}
        else:
            self._stream.bit_rate = self._height * self._width * 8

    def write(self, image: np.ndarray) -> None:
        """Append a frame ``(H, W, 3)`` uint8 RGB."""
        with _explained(self._av, self._problem):
            missing = [
                max(0, least - length) for least, length in zip((self._height, self._width), image.shape, strict=False)
            ]
            image = np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="edge") if any(missing) else image
            cut = np.ascontiguousarray(image[: self._height, : self._width])
            self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(cut, format="rgb24")))

    def close(self) -> None:
        """Finish the file."""
        with _explained(self._av, self._problem):
            self._container.mux(self._stream.encode())
            self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()


def _encodes(av: Any, name: str) -> bool:
    try:
        return bool(av.Codec(name, "w").is_encoder)
    except (av.error.FFmpegError, ValueError):
        return False


@contextmanager
def _explained(av: Any, problem: str) -> Iterator[None]:
    """Turn errors of FFmpeg into one of ours."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise ImageError(f"{problem}: {error.strerror}") from error
