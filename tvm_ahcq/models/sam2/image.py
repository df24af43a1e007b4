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


def prepare_frame(model: Sam2Spec, frame: np.ndarray) -> np.ndarray:
    """Turn a video frame ``(H, W, 3)`` uint8 RGB into the model input ``(1, 3, S, S)`` float32.

    Resized on uint8, bicubic with antialiasing, as upstream's ``load_video_frames`` does.
    """
    side = (model.image_size, model.image_size)
    picture = Image.fromarray(np.ascontiguousarray(check_image(frame)))
    resized = np.asarray(picture.resize(side, Image.Resampling.BICUBIC))
    levels = (np.arange(256) / 255).astype(np.float32)
    image = np.empty((1, 3, *side), np.float32)
    for channel, (mean, std) in enumerate(zip(model.pixel_mean, model.pixel_std, strict=True)):
        table = (levels - np.float32(mean)) / np.float32(std)
        np.take(table, resized[..., channel], out=image[0, channel], mode="clip")
    return image


def resize_smoothly(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a plane ``(h, w)`` to ``(H, W)`` float32: bilinear, with antialiasing where it shrinks."""
    plane = np.ascontiguousarray(mask, np.float32)
    if plane.shape == size:
        return plane
    return np.array(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def to_model_frame(model: Sam2Spec, coords: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return coordinates ``(..., 2)`` of an image of `size` ``(H, W)``, x and y in pixels, in the model's frame."""
    height, width = size
    return np.asarray(coords, np.float32) / np.array([width, height], np.float32) * np.float32(model.image_size)
