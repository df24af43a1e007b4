"""Image preprocessing of SAM 2: squash to a square in floating point, normalise. Equal to upstream's."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tvm_ahcq.image_files import check_image

from .spec import Sam2Spec


def prepare(model: Sam2Spec, image: np.ndarray) -> np.ndarray:
    """Turn an ``(H, W, 3)`` uint8 RGB image into the model input ``(1, 3, S, S)`` float32.

    Each channel is resized as floating point, bilinear with antialiasing, without regard to the aspect ratio.
    """
    side = (model.image_size, model.image_size)
    scaled = check_image(image).astype(np.float32) / 255
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(scaled[..., i])).resize(side, Image.Resampling.BILINEAR))
        for i in range(3)
    ]
    mean = np.array(model.pixel_mean, np.float32).reshape(3, 1, 1)
    std = np.array(model.pixel_std, np.float32).reshape(3, 1, 1)
    return ((np.stack(channels) - mean) / std)[None]


def to_model_frame(model: Sam2Spec, coords: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return coordinates ``(..., 2)`` of an image of `size` ``(H, W)``, x and y in pixels, in the model's frame."""
    height, width = size
    return np.asarray(coords, np.float32) / np.array([width, height], np.float32) * np.float32(model.image_size)
