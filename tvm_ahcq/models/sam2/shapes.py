"""Sizes of the image encoders of SAM 2 (Hiera), for which kernels can be tuned."""

from __future__ import annotations

from tvm_ahcq.models.shapes import EncoderSizes, LinearSize

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
        linear.append(LinearSize(tokens, _PYRAMID, channels, grouped=False))
    return EncoderSizes(tuple(linear))


ENCODERS = {"hiera_t": _encoder(96), "hiera_s": _encoder(96), "hiera_b+": _encoder(112), "hiera_l": _encoder(144)}
