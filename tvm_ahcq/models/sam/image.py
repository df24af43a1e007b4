"""Images before the model: reading files, resizing the longest side, normalising and padding. Equal to upstream's."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tvm_ahcq.errors import ImageError
from tvm_ahcq.runtime.manifest import ModelSpec

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
            "use tvm_ahcq.models.sam.image.load_image for a file, numpy.asarray for a Pillow image"
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


class ResizeLongestSide:
    """Resizes images so that their longest side is `target_length`, and moves coordinates along.

    Parameters
    ----------
    target_length : int
        Side of the model input in pixels.
    """

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Resize an ``(H, W, 3)`` uint8 image: bilinear, with antialiasing, on uint8, as upstream does."""
        height, width = self.get_preprocess_shape(image.shape[0], image.shape[1], self.target_length)
        if (height, width) == image.shape[:2]:
            return np.array(image)
        picture = Image.fromarray(np.ascontiguousarray(image))
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))

    def apply_coords(self, coords: np.ndarray, original_size: tuple[int, ...]) -> np.ndarray:
        """Coordinates ``(..., 2)`` of the original image, x and y in pixels, in the model's frame; float64."""
        old_height, old_width = original_size
        new_height, new_width = self.get_preprocess_shape(old_height, old_width, self.target_length)
        return np.asarray(coords).astype(float) * (new_width / old_width, new_height / old_height)

    def apply_boxes(self, boxes: np.ndarray, original_size: tuple[int, ...]) -> np.ndarray:
        """Boxes ``(..., 4)``, XYXY, of the original image in the model's frame: ``(B, 4)`` float64."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """Height and width after resizing; at least 1, where upstream fails on images as thin as 1 : 2000."""
        scale = long_side_length * 1.0 / max(oldh, oldw)
        return max(1, int(oldh * scale + 0.5)), max(1, int(oldw * scale + 0.5))


def preprocess(image: np.ndarray, model: ModelSpec) -> np.ndarray:
    """Normalise, then pad: padding is 0 after normalising, which is the mean colour.

    Parameters
    ----------
    image : numpy.ndarray
        ``(1, 3, H, W)``, values in 0..255, H and W at most the model's image size S.

    Returns
    -------
    numpy.ndarray
        ``(1, 3, S, S)`` float32.
    """
    mean = np.array(model.pixel_mean, np.float32).reshape(3, 1, 1)
    std = np.array(model.pixel_std, np.float32).reshape(3, 1, 1)
    height, width = image.shape[-2:]
    padded = np.zeros((1, 3, model.image_size, model.image_size), np.float32)
    padded[..., :height, :width] = (image.astype(np.float32) - mean) / std
    return padded
