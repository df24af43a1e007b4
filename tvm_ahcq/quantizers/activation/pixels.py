"""Codes of a normalised picture: at 8 bits, the pixels themselves; see docs/quantizers.md#pixel-codes.

A pixel is one of 256 numbers, normalised with a mean and a standard deviation for each colour. A scale and a zero point
for each colour therefore lose only the fraction of the mean, a constant; one scale for all colours would round most
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ahcq.quantizers.core.range_rule import range_rule

from .cag import CagParams

PixelRange = tuple[Sequence[float], Sequence[float]]
"""Least and greatest value of each colour."""


def pixel_range(mean: Sequence[float], std: Sequence[float]) -> PixelRange:
    """Return the normalised values of the pixels 0 and 255.

    Parameters
    ----------
    mean, std : sequence of float
        Of each colour, on the 0..255 scale.
    """
    ends = [[(level - m) / s for m, s in zip(mean, std, strict=True)] for level in (0.0, 255.0)]
    return ends[0], ends[1]


def observed_range(samples: np.ndarray, colours: int) -> PixelRange:
    """Return the least and greatest value of each colour in patches ``(R, colours * taps)``."""
    values = samples.reshape(len(samples), colours, -1)
    return values.min((0, 2)).tolist(), values.max((0, 2)).tolist()


def pixel_quantizer(ends: PixelRange, channels: int, bits: int) -> CagParams:
    """Return a quantizer with a channel group for each colour.

    Parameters
    ----------
    ends : (sequence, sequence) of float
        Least and greatest value of each colour.
    channels : int
        Of a patch: all taps of the first colour, then those of the next.
    bits : int
        Code width.
    """
    scale, zero_point = range_rule(np.asarray(ends[0]), np.asarray(ends[1]), bits)
    group_of = np.repeat(np.arange(len(scale)), channels // len(scale))
    return CagParams(bits, tuple(scale.tolist()), tuple(zero_point.tolist()), tuple(group_of.tolist()))
