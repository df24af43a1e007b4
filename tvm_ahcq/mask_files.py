"""Masks of several objects in files: PNG with a palette, and run lengths as COCO has them."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image

from tvm_ahcq.errors import ImageError

MOST_OBJECTS = 255
"""Objects that one PNG can tell apart."""


def palette() -> np.ndarray:
    """Return the colours of labels as in Pascal VOC and DAVIS: ``(256, 3)`` uint8, black for the background."""
    labels, colours = np.arange(256), np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> channel) & 1) << (7 - bit)
        labels = labels >> 3
    return colours.astype(np.uint8)


def save_labels(file: IO[bytes], masks: Mapping[int, np.ndarray], size: tuple[int, int]) -> None:
    """Write masks as one PNG with a palette; where objects overlap, the one with the smallest number is on top.

    Parameters
    ----------
    file : binary file
        To write to.
    masks : mapping of int to numpy.ndarray
        ``(H, W)`` bool by the number of the object, 1 to 255.
    size : tuple of int
        Height and width.

    Raises
    ------
    ImageError
        A number is beyond 255.
    """
    labels = np.zeros(size, np.uint8)
    for number in sorted(masks, reverse=True):
        if not 1 <= number <= MOST_OBJECTS:
            raise ImageError(f"object {number} has no place in a PNG with a palette; expected numbers from 1 to 255")
        labels[masks[number]] = number
    picture = Image.fromarray(labels, "P")
    picture.putpalette(palette().tobytes())
    save_picture(file, picture, "PNG")


def save_picture(file: IO[bytes], picture: Image.Image, form: str, **options: Any) -> None:
    """Write a Pillow image; OSError if not all of it can be written.

    Pillow itself writes past the file object, and takes no notice of a disk that is full.
    """
    encoded = BytesIO()
    picture.save(encoded, form, **options)
    file.write(encoded.getbuffer())


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask ``(H, W)`` bool as run lengths in COCO's compressed form: ``{"size": [H, W], "counts": text}``.

    Runs go down the columns, background first. From the fourth on, the difference to the run before the last is stored,
    in groups of five bits, the low ones first (``rleToString`` of the COCO API).
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    first = [0] if flat.size and flat[0] else []
    runs = first + np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    text = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text.append(chr(bits + 32 * more + 48))
    return {"size": [int(length) for length in mask.shape], "counts": "".join(text)}
