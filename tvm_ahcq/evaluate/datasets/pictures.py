"""Picture files of a data set: found by name, measured before the work starts, read the way they were annotated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tvm_ahcq.errors import EvaluationError, ImageError
from tvm_ahcq.image_files import load_image

_ORIENTATION = 0x0112
"""EXIF tag; values from 5 on exchange width and height."""


def picture_files(folder: Path) -> dict[str, Path]:
    """Files of a folder with a picture's extension, by stem, in the order of their names; subfolders are left out.

    Raises
    ------
    EvaluationError
        There is no such folder, it has no pictures, or two of them have the same stem.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    Image.init()
    known = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in known or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            raise EvaluationError(
                f"{folder}: {found[path.stem].name} and {path.name} have the same name but for their extension; "
                "expected one file a picture"
            )
        found[path.stem] = path
    if not found:
        raise EvaluationError(f"{folder}: no picture files in it; expected PNG, JPEG, TIFF, ... right in this folder")
    return found


def picture_sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """``(H, W)`` of a picture the right way up, and as it is stored, from its header.

    They differ where the EXIF orientation turns the picture by a quarter.

    Raises
    ------
    EvaluationError
        The file is missing or not a picture.
    """
    with _opened(path) as image:
        stored = (image.height, image.width)
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
    return (stored[::-1] if turned else stored), stored


def stored_size(path: Path) -> tuple[int, int]:
    """``(H, W)`` of a picture as it is stored, without decoding it.

    :func:`picture_sizes` decodes PNGs, whose orientation may stand behind their pixels.

    Raises
    ------
    EvaluationError
        The file is missing or not a picture.
    """
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise EvaluationError(f"{path}: not an image that can be read: {error}") from error


def load_picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The picture in the orientation in which it has `size` ``(H, W)``: the right way up, or as stored.

    Some tools annotate pixels as they are stored and ignore the EXIF orientation; the size of the annotation tells.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 3)`` uint8, RGB.

    Raises
    ------
    EvaluationError
        The file cannot be read, or has another size either way.
    """
    try:
        image = load_image(path)
    except ImageError as error:
        raise EvaluationError(str(error)) from error
    if image.shape[:2] != size:
        with Image.open(path) as stored:
            image = np.array(stored.convert("RGB"))
    if image.shape[:2] != size:
        raise EvaluationError(f"{path} is {extent(image.shape[:2])} pixels, its annotation {extent(size)}")
    return image


def extent(size: Iterable[int]) -> str:
    """``(H, W)`` for people, as ``640 x 480``: width first."""
    height, width = size
    return f"{width} x {height}"
