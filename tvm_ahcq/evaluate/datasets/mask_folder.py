"""Folders of pictures and masks with equal names: which belong together, and which objects a mask file holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tvm_ahcq.errors import EvaluationError

from .pictures import extent, picture_files, picture_sizes

_GREY_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes in which a pixel is one integer; in "P" it is the index into the palette, as VOC stores labels."""

_LOSSY_THRESHOLD = 127
"""JPEG smears labels; of such a mask only the two sides of this value can be told apart."""


@dataclass(frozen=True)
class MaskPair:
    """A picture and the file with the masks of its objects."""

    image: Path
    mask: Path
    size: tuple[int, int]
    """``(H, W)`` of both, in pixels."""


@dataclass(frozen=True)
class MaskFolder:
    """Pictures with their masks.

    Attributes
    ----------
    pairs : tuple of MaskPair
        By name.
    unmasked : int
        Pictures without a mask, which are left out.
    """

    pairs: tuple[MaskPair, ...]
    unmasked: int = 0


def read_mask_folder(
    images: str | os.PathLike[str], masks: str | os.PathLike[str], limit: int | None = None
) -> MaskFolder:
    """Pair the pictures of one folder with the masks of another: ``images/a.jpg`` with ``masks/a.png``.

    Parameters
    ----------
    images, masks : path-like
        Folders of picture files of any kind that Pillow reads.
    limit : int, optional
        Take that many pairs at most, the first by name.

    Returns
    -------
    MaskFolder

    Raises
    ------
    EvaluationError
        A folder is missing or empty, a mask has no picture, or has another size than its picture.
    """
    pictures, found = picture_files(Path(images)), picture_files(Path(masks))
    orphans = [path for stem, path in found.items() if stem not in pictures]
    if orphans:
        raise EvaluationError(
            f"{orphans[0]}: there is no picture {orphans[0].stem}.* in {images} ({len(orphans)} of {len(found)} masks "
            "have none); expected pictures and masks with the same name but for their extension"
        )
    pairs = tuple(_pair(pictures[stem], mask) for stem, mask in list(found.items())[:limit])
    return MaskFolder(pairs, len(pictures) - len(found))


def _pair(image: Path, mask: Path) -> MaskPair:
    _, size = picture_sizes(mask)
    upright, stored = picture_sizes(image)
    if size not in (upright, stored):
        raise EvaluationError(
            f"{mask} is {extent(size)} pixels, its picture {image} {extent(upright)} (width x height); "
            "a mask must have the size of its picture: resize it with nearest neighbour"
        )
    return MaskPair(image, mask, size)


def load_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a mask file.

    Parameters
    ----------
    path : path-like
        A grey, palette or black-and-white picture, of 1, 8, 16 or 32 bits; a colour picture if it shows only greys. A
        JPEG is taken as black and white.

    Returns
    -------
    numpy.ndarray
        ``(H, W)`` int64: 0 for background, another number for each object.

    Raises
    ------
    EvaluationError
        The file cannot be read, or its pixels are not labels.
    """
    try:
        with Image.open(path) as image:
            image.load()
            labels = _one_channel(Path(path), image).astype(np.int64)
            lossy = image.format in ("JPEG", "MPO")
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise EvaluationError(f"{path}: not a mask that can be read: {error}") from error
    return (labels > _LOSSY_THRESHOLD).astype(np.int64) if lossy else labels


def _one_channel(path: Path, image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    if image.mode in _GREY_MODES:
        return pixels
    if image.mode in ("LA", "PA"):
        return pixels[..., 0]
    if image.mode in ("RGB", "RGBA"):
        if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
            return pixels[..., 0]
        raise EvaluationError(
            f"{path}: is a colour picture; expected one number a pixel: 0 for background, another for each object "
            "(a grey or palette picture)"
        )
    raise EvaluationError(f"{path}: has pixels of kind {image.mode!r}; expected whole numbers, of 1 to 32 bits")


def object_labels(labels: np.ndarray, void: int | None = None) -> list[int]:
    """Numbers of the objects in a label image: every value but 0 and `void`, ascending."""
    return [int(label) for label in np.unique(labels) if label not in (0, void)]
