"""Model types of SAM, and the sizes of their image encoders; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from tvm_ahcq.models.description import Variant
from tvm_ahcq.models.shapes import AttentionSize, EncoderSizes, LinearSize

EMBEDDED_WEIGHTS = Path(__file__).parent / "weights" / "vit_t.safetensors"
"""Weights of ``vit_t``, trained on generated scenes; part of the package."""

_OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything/"

_GRID, _WINDOW, _NECK = 64, 14, 256
"""Tokens along a side of the image embedding (1024 / 16) and of a window; channels of the neck."""


def _encoder(width: int, heads: int) -> EncoderSizes:
    """Return the sizes of a ViT at 1024 x 1024."""
    tokens, windows = _GRID**2, (-(-_GRID // _WINDOW)) ** 2
    linear = [
        LinearSize(rows, outputs, width, grouped=True)
        for rows in (windows * _WINDOW**2, tokens)
        for outputs in (3 * width, width)
    ]
    linear += [
        LinearSize(tokens, 4 * width, width, grouped=True),
        LinearSize(tokens, width, 4 * width, grouped=False),
        LinearSize(tokens, _NECK, width, grouped=False),
        LinearSize(tokens, _NECK, 9 * _NECK, grouped=False),
    ]
    channels = width // heads
    attention = AttentionSize(windows, heads, _WINDOW, channels), AttentionSize(1, heads, _GRID, channels)
    return EncoderSizes(tuple(linear), attention)


VARIANTS = (
    Variant("vit_t", weights=EMBEDDED_WEIGHTS),
    Variant("vit_b", _OFFICIAL + "sam_vit_b_01ec64.pth", encoder=_encoder(768, 12)),
    Variant("vit_l", _OFFICIAL + "sam_vit_l_0b3195.pth", encoder=_encoder(1024, 16)),
    Variant("vit_h", _OFFICIAL + "sam_vit_h_4b8939.pth", encoder=_encoder(1280, 16)),
)
