"""Frames of a video, read when they are needed: a folder of pictures, a video file, arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from tvm_ahcq.errors import ImageError
from tvm_ahcq.image_files import check_image, load_image

PICTURES = (".jpg", ".jpeg", ".png")
"""Suffixes of the files of a folder that are frames."""

_ORIENTATION = 0x0112
"""EXIF tag; from 5 on, height and width change places."""


class Frames(Protocol):
    """Frames of one video by number, all of one size."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, number: int, /) -> np.ndarray:
        """Return a frame ``(H, W, 3)`` uint8 RGB; IndexError if there is none of that number."""


def open_frames(video: Any) -> Frames:
    """Open a video for reading frame by frame.

    Parameters
    ----------
    video : path-like, Frames, or sequence or iterable of numpy.ndarray
        A folder of JPEG or PNG files, in the order of the numbers in their names; a video file, which needs the package
        ``av``; or ``(H, W, 3)`` uint8 RGB arrays. A sequence is read when a frame is needed, what can only be iterated
        over is read at once.

    Returns
    -------
    Frames
        Pixels of a few frames are in memory at a time, but for arrays that were given.

    Raises
    ------
    ImageError
        There is no such video, it has no frames, frames differ in size, or a package is missing.
    """
    if isinstance(video, str | os.PathLike):
        path = Path(video)
        if path.is_dir():
            return FolderFrames(path)
        if not path.exists():
            raise ImageError(f"{path}: no such file or folder; expected a video, or a folder of JPEG or PNG files")
        from tvm_ahcq.video_file import VideoFile

        return VideoFile(path)
    if isinstance(getattr(video, "size", None), tuple):
        return cast("Frames", video)
    if isinstance(video, np.ndarray) or (hasattr(video, "__len__") and hasattr(video, "__getitem__")):
        return ArrayFrames(video)
    if isinstance(video, Iterable):
        return ArrayFrames(list(video))
    raise ImageError(
        f"expected a video as a path or as arrays (H, W, 3) uint8, got {type(video).__name__}; "
        "a stream without an end goes into predictor.stream()"
    )


class FolderFrames:
    """Picture files of a folder.

    Parameters
    ----------
    folder : path-like
        With files such as ``00000.jpg``; other files are passed over.

    Attributes
    ----------
    paths : list of Path
        Of the frames, in order.
    size : tuple of int
        Height and width.

    Raises
    ------
    ImageError
        There are no pictures, or they differ in size.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        found = [path for path in Path(folder).iterdir() if path.suffix.lower() in PICTURES]
        self.paths = sorted(found, key=_by_number)
        if not self.paths:
            raise ImageError(f"{folder}: has no frames; expected files such as 00000.jpg or 00000.png")
        self.size = _size_of_file(self.paths[0])
        for path in self.paths[1:]:
            self._check(path, _size_of_file(path))
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> np.ndarray:
        if self._last is None or self._last[0] != number:
            image = load_image(self.paths[number])
            self._check(self.paths[number], image.shape[:2])
            self._last = number, image
        return self._last[1]

    def _check(self, path: Path, size: tuple[int, ...]) -> None:
        if size != self.size:
            raise ImageError(_different(str(path), size, self.paths[0].name, self.size))


class ArrayFrames:
    """Arrays ``(H, W, 3)`` uint8 RGB of a sequence, or of an array ``(T, H, W, 3)``.

    Raises
    ------
    ImageError
        There are none, or the first one is no image; reading raises it for the others.
    """

    def __init__(self, arrays: Sequence[np.ndarray] | np.ndarray) -> None:
        self._arrays = arrays
        if len(arrays) == 0:
            raise ImageError("the video has no frames; expected at least one array (H, W, 3) uint8")
        first = check_image(arrays[0])
        self.size = (first.shape[0], first.shape[1])

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, number: int) -> np.ndarray:
        image = check_image(self._arrays[number])
        if image.shape[:2] != self.size:
            raise ImageError(_different(f"frame {number}", image.shape[:2], "frame 0", self.size))
        return image


def _different(name: str, size: tuple[int, ...], first: str, expected: tuple[int, ...]) -> str:
    return (
        f"{name} has {size[1]} x {size[0]} pixels (width x height), {first} has {expected[1]} x {expected[0]}; "
        "expected all frames of a video to have one size"
    )


def _by_number(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Order of names in which the numbers count, so that 10 follows 9."""
    parts = re.findall(r"(\d+)|(\D+)", path.stem)
    return [(int(digits), "") if digits else (-1, text) for digits, text in parts], path.name


def _size_of_file(path: Path) -> tuple[int, int]:
    """Height and width of a picture file, from its header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that Pillow can read; expected PNG or JPEG") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read: {error}") from error
    return (width, height) if turned else (height, width)
