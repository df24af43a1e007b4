"""Fixed-point form of a layer's scales, and the reference of what the accelerator makes of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ...errors import DeviceError
from ..hardware.generated.isa import LIMITS
from ..hardware.layout import INT32_MAX, fixed_scale
from .linear import LinearStage

_MANTISSA = LIMITS["mantissa_bits"]


def fraction_bits(multiplier: np.ndarray, bias: np.ndarray, largest: np.ndarray) -> int:
    """The finest fraction with which no sum leaves int32 and no multiplier its mantissa.

    Parameters
    ----------
    multiplier, bias : numpy.ndarray
        ``(G, N)`` and ``(N,)``.
    largest : numpy.ndarray
        ``(G, N)`` greatest absolute value of each accumulator.

    Raises
    ------
    DeviceError
        If numbers are too large for any fraction.
    """
    bound = float((np.abs(multiplier) * largest).sum(0).max() + np.abs(bias).max())
    scale = float(np.abs(multiplier).max())
    bits = min(30 - _ceil_log2(bound), _MANTISSA - 2 - _ceil_log2(scale))
    if bits < 0:
        raise DeviceError(f"sums up to {bound:g} leave 32 bits")
    return min(bits, 40)


def _ceil_log2(value: float) -> int:
    return int(np.ceil(np.log2(max(value, 2.0**-60))))


def stage_reference(stage: LinearStage, codes: np.ndarray) -> np.ndarray:
    """What :func:`.linear.linear_entries` computes, in numpy: int64 sums ``(rows, N)``, or uint8 codes.

    Parameters
    ----------
    stage : LinearStage
        Layer.
    codes : numpy.ndarray
        ``(rows, K)`` uint8.
    """
    weight = stage.weight.astype(np.int64) - stage.zero[:, None].astype(np.int64)
    words = fixed_scale(stage.multiplier, stage.fraction_bits).astype(np.int64)
    shift, mantissa = words >> _MANTISSA & 63, words & ((1 << _MANTISSA) - 1)
    mantissa -= (mantissa >> (_MANTISSA - 1)) << _MANTISSA
    y = np.broadcast_to(np.rint(stage.bias * 2.0**stage.fraction_bits).astype(np.int64), (len(codes), stage.outputs))
    bounds = np.cumsum([0, *stage.group_sizes])
    for group, (low, high) in enumerate(pairwise(bounds)):
        operands = np.asarray(stage.tables[group], np.int64)[codes[:, low:high]]
        product = (operands @ weight[:, low:high].T) * mantissa[group]
        half = np.where(shift[group] > 0, np.int64(1) << np.maximum(shift[group] - 1, 0), 0)
        y = np.clip(((product + half) >> shift[group]) + y, -(2**31), INT32_MAX)
    if stage.thresholds is None or stage.out_codes is None:
        return y
    return np.asarray(stage.out_codes, np.uint8)[np.searchsorted(stage.thresholds, y, side="left")]
