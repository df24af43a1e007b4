"""Image files of any kind as ``(H, W, 3)`` uint8 RGB arrays."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tvm_ahcq.errors import ImageError

_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images with more than 8 bits."""


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file of any kind that Pillow knows, the right way up.

    Grey, palette and CMYK become RGB, 16 bits become 8, transparency is dropped, and the EXIF orientation is applied.
    Of an animation, the first frame is taken.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 3)`` uint8, RGB.

    Raises
    ------
    ImageError
        The file is missing, unreadable, of a kind without a range, or beyond Pillow's limit against decompression
        bombs (179 million pixels, ``2 * PIL.Image.MAX_IMAGE_PIXELS``).
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns at half of its limit, which a 10,000 x 10,000 photograph exceeds
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return _to_rgb(path, ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: too many pixels to be decoded safely ({error}); resize it first, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that Pillow can read; expected PNG, JPEG, TIFF, ...") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three on damaged files
        raise ImageError(f"{path}: cannot be read: {error}") from error


def _to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """The pixels of a decoded image as RGB uint8."""
    if image.mode in _WIDE_MODES:
        # convert() would clip at 255 what is above it
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError(f"{path}: has grey values {wide.min()}..{wide.max()}; expected 8 or 16 bits")
        grey = ((wide + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{path}: has floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # takes the palette's transparency along, which "RGB" would warn about
    return np.array(image.convert("RGB"))


def check_image(image: np.ndarray) -> np.ndarray:
    """The array, once it is an ``(H, W, 3)`` uint8 image.

    Raises
    ------
    ImageError
        It is not; the message says what to do.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"expected an image as a numpy array (H, W, 3) uint8, got {type(image).__name__}; "
            "use tvm_ahcq.image_files.load_image for a file, numpy.asarray for a Pillow image"
        )
    given = f"{image.dtype}{image.shape}"
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise ImageError(
            f"expected an RGB image (H, W, 3) uint8, got the grey image {given}; "
            "repeat its channel with numpy.repeat(image.reshape(h, w, 1), 3, axis=2)"
        )
    if image.ndim == 3 and image.shape[2] == 4:
        raise ImageError(f"expected an RGB image (H, W, 3) uint8, got {given}; drop its alpha with image[..., :3]")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"expected an RGB image (H, W, 3) uint8, got {given}")
    if image.dtype != np.uint8:
        raise ImageError(
            f"expected uint8 values in 0..255, got {given}; if they are in 0..1, use "
            "(image * 255).round().astype(numpy.uint8)"
        )
    if 0 in image.shape:
        raise ImageError(f"the image has no pixels: {given}")
    return image
