"""Image preprocessing of SAM: resize the longest side, normalise, pad. Equal to upstream's."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tvm_ahcq.image_files import check_image

from .spec import SamSpec


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


def preprocess(image: np.ndarray, model: SamSpec) -> np.ndarray:
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


def prepare(model: SamSpec, image: np.ndarray) -> np.ndarray:
    """Turn an ``(H, W, 3)`` uint8 RGB image into the model input ``(1, 3, S, S)`` float32: resize, normalise, pad."""
    resized = ResizeLongestSide(model.image_size).apply_image(check_image(image))
    return preprocess(resized.transpose(2, 0, 1)[None], model)
