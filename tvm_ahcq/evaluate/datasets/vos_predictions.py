"""Predicted masks of videos as the benchmarks want them: palette PNGs, or a folder for each object as SA-V has it.

A file appears when it is complete, so that what is there after an interruption need not be computed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tvm_ahcq.atomic_file import atomic_file
from tvm_ahcq.errors import EvaluationError

from .mask_folder import load_labels
from .pictures import stored_size
from .video_folders import Video, is_whole_png

RECORD = "predictions.json"
"""File that says what made the predictions of a folder."""

MOST_OBJECTS = 254
"""Largest number of an object in a shared PNG; 255 is void."""


def davis_palette() -> bytes:
    """Return 256 RGB colours: three bits of the index at a time, to the highest bits of red, green and blue."""
    index = np.arange(256)
    channels = [sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(3)) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8).tobytes()


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """Write labels ``(H, W)`` uint8 as a PNG with :func:`davis_palette`; its folder is made where it does not exist.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    picture = Image.fromarray(labels)
    picture.putpalette(davis_palette())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        picture.save(file, "PNG")


@dataclass(frozen=True)
class PredictionFolder:
    """A folder of predictions, for one model and one way to make masks.

    Attributes
    ----------
    root : Path
        The folder; one folder a video below it.
    per_object : bool
        ``VIDEO/OBJECT/FRAME.png`` of 0 and 1, in place of ``VIDEO/FRAME.png`` with the numbers of objects.
    """

    root: Path
    per_object: bool

    def claim(self, made_by: Mapping[str, Any]) -> None:
        """Make the folder, and record what makes its predictions.

        Raises
        ------
        EvaluationError
            It cannot be written to, or has predictions that something else made.
        """
        record = self.root / RECORD
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if record.exists():
                self._check_same(json.loads(record.read_text()), made_by)
            elif any(path.is_dir() for path in self.root.iterdir()):
                raise EvaluationError(
                    f"{self.root} has folders, but no {RECORD} that says which model made them; give a new folder"
                )
            else:
                with atomic_file(record) as file:
                    file.write(json.dumps(dict(made_by), indent=1).encode())
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PermissionError(13, "no permission to write to it")
        except OSError as error:
            raise EvaluationError(f"{self.root}: predictions cannot be written there: {error.strerror}") from error
        except ValueError as error:
            raise EvaluationError(f"{record} is damaged: {error}; give a new folder") from error

    def _check_same(self, stored: Any, made_by: Mapping[str, Any]) -> None:
        other = [key for key in made_by if not isinstance(stored, dict) or stored.get(key) != made_by[key]]
        if other:
            given = stored.get(other[0]) if isinstance(stored, dict) else stored
            raise EvaluationError(
                f"{self.root} has predictions that were made otherwise ({other[0]}: {given}, now {made_by[other[0]]}); "
                "give a new folder, or delete this one"
            )

    def is_complete(self, video: Video, numbers: Iterable[int]) -> bool:
        """True if every frame of a video has its files, whole and of its size."""
        paths = [path for frame in range(len(video.frames)) for path in self._paths(video, frame, numbers).values()]
        return all(path.is_file() and is_whole_png(path) and stored_size(path) == video.size for path in paths)

    def write(self, video: Video, frame: int, masks: Mapping[int, np.ndarray]) -> None:
        """Write the masks of a frame.

        Parameters
        ----------
        video : Video
            The video.
        frame : int
            Index of the frame.
        masks : mapping
            Bool ``(H, W)`` by number of the object, of all objects. In a shared PNG the lowest number wins where
            several are true.

        Raises
        ------
        EvaluationError
            A file cannot be written, or a number does not fit into a shared PNG.
        """
        for number, path in self._paths(video, frame, masks).items():
            labels = masks[number].astype(np.uint8) if number is not None else _labels(video, masks)
            try:
                write_palette_png(path, labels)
            except OSError as error:
                raise EvaluationError(f"{path}: the prediction cannot be written: {error.strerror}") from error

    def read(self, video: Video, frame: int, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        """Read the masks of a frame back.

        Returns
        -------
        dict
            Bool ``(H, W)`` by number of the object.

        Raises
        ------
        EvaluationError
            A file cannot be read.
        """
        wanted = list(numbers)
        labels = {number: load_labels(path) for number, path in self._paths(video, frame, wanted).items()}
        if self.per_object:
            return {number: labels[number] > 0 for number in wanted}
        return {number: labels[None] == number for number in wanted}

    def _paths(self, video: Video, frame: int, numbers: Iterable[int]) -> dict[int | None, Path]:
        folder, name = self.root / video.name, f"{video.frames[frame]}.png"
        if self.per_object:
            return {number: folder / f"{number:03d}" / name for number in numbers}
        return {None: folder / name}


def _labels(video: Video, masks: Mapping[int, np.ndarray]) -> np.ndarray:
    labels = np.zeros(video.size, np.uint8)
    for number in sorted(masks, reverse=True):
        if not 0 < number <= MOST_OBJECTS:
            raise EvaluationError(
                f"{video.name}: object {number} does not fit into a PNG; expected 1 to {MOST_OBJECTS}"
            )
        labels[masks[number]] = number
    return labels
