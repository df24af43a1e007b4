"""Calibration images and clips: from a folder or any iterable, preprocessed as the predictor does."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from tvm_ahcq.errors import CalibrationError, ImageError
from tvm_ahcq.image_files import load_image
from tvm_ahcq.models.description import ModelSpec
from tvm_ahcq.models.registry import find_family

from .clips import clip_paths, read_clips

CalibrationImage = str | os.PathLike | Image.Image | np.ndarray
"""A path, a Pillow image, an ``(H, W, 3)`` uint8 array (RGB), or such frames of a clip in an array ``(T, H, W, 3)``,
for a model that tracks."""


def load_calibration(
    source: str | os.PathLike | Iterable[CalibrationImage], model: ModelSpec, limit: int | None = None
) -> Iterator[np.ndarray]:
    """Read calibration images one by one.

    Parameters
    ----------
    source : path or iterable
        A folder, whose image files are taken in the order of their names (subfolders and other files are left out); for
        a model that tracks, its video files and subfolders of frames, where it has any (:mod:`.clips`); or an iterable
        of paths, Pillow images, ``(H, W, 3)`` uint8 arrays, and for a model that tracks also clips ``(T, H, W, 3)``
        uint8, taken in its order.
    model : ModelSpec
        Figures of the model; its family prepares images.
    limit : int, optional
        Take that many images at most.

    Yields
    ------
    np.ndarray
        Samples as the family prepares them; of SAM ``(1, 3, S, S)`` float32: longest side resized to S, normalised,
        zero-padded right and below; of a clip, those of its frames, ``(T, 1, 3, S, S)``.

    Raises
    ------
    CalibrationError
        At once for a folder that is missing, not a folder, or without image files, and for an empty iterable; while
        iterating for an element that is not an image, or when no file of the folder could be read. Single unreadable
        files in a folder are named in a warning and left out.
    """
    if limit is not None and limit < 1:
        raise CalibrationError(f"limit is {limit}; expected at least one calibration image, or None for all")
    if isinstance(source, str | os.PathLike):
        folder = Path(source)
        if model.tracks and (videos := clip_paths(folder)):
            return islice((_prepare(frames, name, model) for name, frames in read_clips(videos)), limit)
        return islice(_from_folder(folder, _image_files(folder), model), limit)
    if isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim < 4):
        raise CalibrationError("calibration is a single image; expected a folder or several images, such as [image]")
    if not isinstance(source, Iterable):
        raise CalibrationError(f"calibration is a {type(source).__name__}; expected a folder or an iterable of images")
    images = iter(source)
    first = next(images, None)
    if first is None:
        raise CalibrationError("the iterable of calibration images is empty; expected at least one image")
    chosen = islice(chain([first], images), limit)
    return (_prepare(image, f"calibration image {position}", model) for position, image in enumerate(chosen))


def load_pictures(folder: str | os.PathLike, limit: int) -> list[np.ndarray]:
    """The first `limit` readable pictures of a folder as they are, ``(H, W, 3)`` uint8 RGB, by name.

    Raises
    ------
    CalibrationError
        For a folder that is missing, not a folder, or without a readable image file.
    """
    pictures: list[np.ndarray] = []
    for path in _image_files(Path(folder)):
        if len(pictures) == limit:
            break
        try:
            pictures.append(load_image(path))
        except ImageError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    if not pictures:
        raise CalibrationError(f"{folder}: none of its image files can be read")
    return pictures


def _image_files(folder: Path) -> list[Path]:
    """Files of a folder that have an image's extension, by name."""
    if not folder.exists():
        raise CalibrationError(f"{folder}: no such folder; pass a folder of images, or an iterable of images")
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: is not a folder; pass the folder it is in, or [path] to use this file alone")
    Image.init()
    known = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in known and path.is_file())
    if not files:
        others = sum(1 for _ in folder.iterdir())
        found = f"{others} other entries" if others else "nothing"
        raise CalibrationError(f"{folder}: no image files in it, {found}; put PNG or JPEG files right into it")
    return files


def _from_folder(folder: Path, files: list[Path], model: ModelSpec) -> Iterator[np.ndarray]:
    readable, first_error = 0, None
    for path in files:
        try:
            image = load_image(path)
        except ImageError as error:
            first_error = first_error or error
            warnings.warn(f"left out of the calibration: {error}", stacklevel=2)
            continue
        readable += 1
        yield _prepare(image, str(path), model)
    if not readable:
        raise CalibrationError(f"{folder}: none of its {len(files)} image files can be read; the first: {first_error}")


def _prepare(image: CalibrationImage, name: str, model: ModelSpec) -> np.ndarray:
    """Any form of image -> model input."""
    try:
        if isinstance(image, str | os.PathLike):
            image = load_image(image)
        elif isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        prepare = find_family(model.family).prepare
        if model.tracks and np.ndim(image) == 4:
            return np.stack([prepare(model, frame) for frame in image])
        return prepare(model, image)
    except ImageError as error:
        raise CalibrationError(f"{name}: {error}") from error
