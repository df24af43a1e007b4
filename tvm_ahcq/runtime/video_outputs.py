"""Where the masks of a video go: a picture a frame, a video, PNGs with a palette, run lengths."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tvm_ahcq.atomic_file import atomic_file
from tvm_ahcq.errors import ImageError
from tvm_ahcq.mask_files import encode_rle, save_labels, save_picture
from tvm_ahcq.video_file import VideoWriter

from .video_overlay import DrawnPrompts, draw_objects

_QUALITY = 92
"""Of JPEG files."""


class Output(Protocol):
    """Takes the frames of a video in order."""

    def write(self, frame: int, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> None:
        """Write a frame ``(H, W, 3)`` uint8 with the masks ``(H, W)`` bool of its objects, by number."""

    def close(self) -> None:
        """Finish what is open."""


Draw = Callable[[int, np.ndarray, Mapping[int, np.ndarray]], np.ndarray]
"""A frame's number, pixels and masks to what is shown."""


def drawing(prompts: Mapping[int, DrawnPrompts]) -> Draw:
    """Return a function that draws masks, and on frames with prompts those too."""

    def draw(frame: int, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> np.ndarray:
        return draw_objects(image, [masks[number] for number in sorted(masks)], prompts.get(frame))

    return draw


class PictureFolder:
    """JPEG files ``00000.jpg`` and so on with the masks drawn in."""

    def __init__(self, folder: Path, draw: Draw) -> None:
        self._folder, self._draw = folder, draw
        folder.mkdir(exist_ok=True)

    def write(self, frame: int, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> None:
        """Write a frame."""
        path = self._folder / f"{frame:05d}.jpg"
        with _writing(path), atomic_file(path) as file:
            save_picture(file, Image.fromarray(self._draw(frame, image, masks)), "JPEG", quality=_QUALITY)

    def close(self) -> None:
        """Do nothing: every file is complete."""


class LabelFolder:
    """PNG files ``00000.png`` and so on, with a palette: the value of a pixel is the number of its object."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def write(self, frame: int, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> None:
        """Write a frame."""
        path = self._folder / f"{frame:05d}.png"
        with _writing(path), atomic_file(path) as file:
            save_labels(file, masks, (image.shape[0], image.shape[1]))

    def close(self) -> None:
        """Do nothing: every file is complete."""


class RunLengths:
    """One JSON file with COCO's run lengths of every object on every frame."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[dict[str, Any]] = []

    def write(self, frame: int, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> None:
        """Encode the masks of a frame."""
        for number, mask in masks.items():
            area = int(mask.sum())
            self._found.append({"frame": frame, "object": number, "area": area, "segmentation": encode_rle(mask)})

    def close(self) -> None:
        """Write the file."""
        with _writing(self._path), atomic_file(self._path) as file:
            file.write(json.dumps({"annotations": self._found}).encode() + b"\n")


class DrawnVideo:
    """A video file with the masks drawn in, which appears when it is closed; after an error while writing it, never."""

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction, draw: Draw) -> None:
        self._path, self._draw, self._stack = path, draw, ExitStack()
        with self._kept_whole():
            file = self._stack.enter_context(atomic_file(path))
            self._writer = self._stack.enter_context(VideoWriter(file, path, size, rate))

    def write(self, frame: int, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> None:
        """Append a frame."""
        picture = self._draw(frame, image, masks)
        with self._kept_whole():
            self._writer.write(picture)

    def close(self) -> None:
        """Finish the file."""
        with _writing(self._path):
            self._stack.close()

    @contextmanager
    def _kept_whole(self) -> Iterator[None]:
        """After an error, leave what was at the file's place before."""
        with _writing(self._path):
            try:
                yield
            except BaseException as error:
                self._stack.__exit__(type(error), error, error.__traceback__)
                raise


@contextmanager
def finished(outputs: Sequence[Output]) -> Iterator[None]:
    """Finish outputs when the block ends, also after an error: what was written until then is kept."""
    try:
        yield
    finally:
        for output in outputs:
            output.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which file it was that could not be written."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}") from error
