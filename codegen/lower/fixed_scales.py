"""Fixed-point scales of a layer, and the numpy reference of a layer on the accelerator."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tvm_ahcq.codegen.isa.generated.isa import LIMITS
from tvm_ahcq.codegen.isa.layout import INT32_MAX
from tvm_ahcq.codegen.lower.linear.stage import HALF_BITS, LinearStage, scale_parts
from tvm_ahcq.errors import DeviceError

_MANTISSA = LIMITS["mantissa_bits"]


def fraction_bits(multiplier: np.ndarray, bias: np.ndarray, largest: np.ndarray) -> int:
    """Return the most fraction bits with which no sum leaves int32 and no multiplier its mantissa.

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
    """Compute in numpy what the program of :func:`.linear.program.linear_instructions` does.

    Parameters
    ----------
    stage : LinearStage
        Layer.
    codes : numpy.ndarray
        ``(rows, K)`` uint8; ``(rows, 2 K)`` where they come in halves.

    Returns
    -------
    numpy.ndarray
        int64 accumulators ``(G, rows, N)``, or uint8 codes ``(rows, N)``.
    """
    halves = [
        part - zero[:, None].astype(np.int64)
        for part, zero in zip(
            np.split(stage.weight, stage.weight_halves, 1), np.split(stage.zero, stage.weight_halves), strict=True
        )
    ]
    weight = sum((1 << HALF_BITS) ** (len(halves) - 1 - i) * half for i, half in enumerate(halves))
    bounds = np.cumsum([0, *stage.group_sizes])
    split, tables = np.split(codes, stage.code_halves, 1), np.asarray(stage.tables, np.int64)
    operands = [
        sum(tables[half if len(split) > 1 else group][part[:, low:high]] for half, part in enumerate(split))
        for group, (low, high) in enumerate(pairwise(bounds))
    ]
    sums = [x @ weight[:, low:high].T for x, (low, high) in zip(operands, pairwise(bounds), strict=True)]
    if stage.encoder is None:
        return np.stack(sums)
    encoder = stage.encoder
    y = np.rint(encoder.bias * 2.0**encoder.fraction_bits).astype(np.int64)[None]
    for acc, *words in zip(sums, *encoder.scales(), strict=True):
        for word in words:
            scale, down = scale_parts(word)
            half = np.where(down > 0, np.int64(1) << np.maximum(down - 1, 0), 0)
            y = np.clip(((acc * scale + half) >> down) + y, -(2**31), INT32_MAX)
    return np.asarray(encoder.codes, np.uint8)[np.searchsorted(encoder.thresholds, y, side="left")]
