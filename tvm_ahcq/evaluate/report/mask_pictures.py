"""Masks side by side for the report: float, quantized, and where they differ, as pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tvm_ahcq.evaluate.sensitivity.measure import MaskPair
from tvm_ahcq.evaluate.sensitivity.probes import Probe
from tvm_ahcq.runtime.overlay import overlay

LONGEST_SIDE = 360
"""Pixels of a picture in the report."""

ONLY_FLOAT, ONLY_QUANTIZED = (30, 110, 230), (240, 130, 20)
"""RGB of pixels that only one of two masks has; told apart by the colour-blind too."""

JPEG_QUALITY = 88


def instructive(masks: Sequence[MaskPair], pictures: int) -> list[MaskPair]:
    """For each of the first `pictures` probes the prompt whose masks agree least, and the one in the middle."""
    chosen = []
    for picture in range(pictures):
        ranked = sorted((pair for pair in masks if pair.picture == picture), key=lambda pair: (pair.iou, pair.prompt))
        chosen += ranked[:1]
        if len(ranked) > 2:
            chosen.append(ranked[len(ranked) // 2])
    return chosen


def side_by_side(pair: MaskPair, probe: Probe) -> tuple[str, str, str]:
    """Data URIs of the float mask, the quantized mask, and their difference."""
    clicks = len(probe.clicks)
    prompt = (
        {"point_coords": probe.clicks[pair.prompt : pair.prompt + 1]}
        if pair.prompt < clicks
        else {"boxes": probe.boxes[pair.prompt - clicks]}
    )
    exact, quantized = (data_uri(overlay(probe.image, mask, **prompt)) for mask in (pair.exact, pair.quantized))
    return exact, quantized, data_uri(difference(probe.image, pair.exact, pair.quantized))


def difference(image: np.ndarray, exact: np.ndarray, quantized: np.ndarray) -> np.ndarray:
    """The picture, grey and faint, with the pixels in colour that only one of the masks has; those of both stay light.

    Parameters
    ----------
    image : numpy.ndarray
        ``(H, W, 3)`` uint8, RGB.
    exact, quantized : numpy.ndarray
        ``(H, W)`` bool.
    """
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    shown = np.where((exact & quantized)[..., None], 150 + 0.4 * grey, 40 + 0.3 * grey)
    shown[exact & ~quantized] = ONLY_FLOAT
    shown[quantized & ~exact] = ONLY_QUANTIZED
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)


def data_uri(picture: np.ndarray) -> str:
    """``(H, W, 3)`` uint8 as a JPEG inside an address."""
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
