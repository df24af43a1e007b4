"""Model types of SAM 2, and the sizes of their image encoders; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from tvm_ahcq.models.description import Variant
from tvm_ahcq.models.shapes import EncoderSizes, LinearSize

EMBEDDED_WEIGHTS = Path(__file__).parent / "weights" / "sam2_n.safetensors"
"""Weights of ``sam2_n``, trained on generated scenes; part of the package."""

_OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything_2/"

_GRID, _PYRAMID = 64, 256
"""Tokens along a side of the third stage (1024 / 16); channels of the feature pyramid."""


def _encoder(width: int) -> EncoderSizes:
    """Return the sizes at 1024 x 1024: four stages, each of twice the width and a quarter of the tokens of the last."""
    linear: list[LinearSize] = []
    for stage in range(4):
        channels, tokens = width << stage, (4 * _GRID >> stage) ** 2
        linear += [LinearSize(tokens, outputs * channels, channels, grouped=True) for outputs in (3, 1, 4)]
        linear.append(LinearSize(tokens, channels, 4 * channels, grouped=False))
        if stage:  # the first block of a stage widens
            linear += [LinearSize(4 * tokens, outputs * channels, channels // 2, grouped=True) for outputs in (3, 1)]
        linear.append(LinearSize(tokens, _PYRAMID, channels, grouped=True))
    return EncoderSizes(tuple(linear))


_SIZES = {
    "t": ("tiny", _encoder(96)),
    "s": ("small", _encoder(96)),
    "b+": ("base_plus", _encoder(112)),
    "l": ("large", _encoder(144)),
}
"""By the short name of a size: its name in the address of the checkpoint, and its encoder."""

_VERSIONS = {"sam2.1": "092824", "sam2": "072824"}
"""By version: folder of the published checkpoints."""

VARIANTS = (
    Variant("sam2_n", weights=EMBEDDED_WEIGHTS),
    *(
        Variant(f"{version}_hiera_{size}", f"{_OFFICIAL}{folder}/{version}_hiera_{long}.pt", encoder=encoder)
        for version, folder in _VERSIONS.items()
        for size, (long, encoder) in _SIZES.items()
    ),
)
