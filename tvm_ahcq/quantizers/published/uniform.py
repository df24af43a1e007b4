"""The published range search of attention keys: Brent over the range, and within it over its shift.

The loss is a step function of both, so the search may stop in a local minimum;
:func:`tvm_ahcq.quantizers.activation.uniform.calibrate_uniform` is the default. See docs/quantizers.md#uniform.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ahcq.quantizers.activation.softmax_table import power_loss
from tvm_ahcq.quantizers.activation.uniform import UniformParams, uniform_from_range
from tvm_ahcq.quantizers.core.params import check_samples
from tvm_ahcq.quantizers.core.range_rule import range_rule

from .brent import bounded_minimum

_SAMPLE_LIMIT = 1 << 16


def range_loss(samples: np.ndarray, low: float, high: float, bits: int) -> float:
    """Return the mean ``|x_q - x|**2.4`` of the uniform quantizer of a range."""
    scale, zero_point = range_rule(low, high, bits)
    top = np.float32(2**bits - 1)
    codes = np.clip(np.rint(samples / scale) + np.float32(zero_point), np.float32(0), top)
    return power_loss((codes - np.float32(zero_point)) * scale - samples)


def search_range(samples: np.ndarray, bits: int) -> tuple[float, float]:
    """Return the range of one image by the published search.

    Samples of one sign keep 0 at an end of their range, and only the other end is searched. Otherwise the range
    ``[-shift, reach - shift]`` is searched and then cut to that of the samples.

    Parameters
    ----------
    samples : numpy.ndarray
        Any shape, float32; thinned at random (seeded) to about 2**16, the extremes kept.
    bits : int
        Code width.
    """
    samples = _thin(check_samples(samples, "searched uniform").reshape(-1))
    low, high = float(samples.min()), float(samples.max())
    if low >= 0 or high <= 0:
        sign, reach = (1.0, high) if low >= 0 else (-1.0, -low)
        if reach == 0:
            return 0.0, 0.0
        best, _ = bounded_minimum(
            lambda end: range_loss(samples, min(sign * end, 0.0), max(sign * end, 0.0), bits), _least(reach), reach
        )
        return min(sign * best, 0.0), max(sign * best, 0.0)

    def best_shift(reach: float) -> tuple[float, float]:
        return bounded_minimum(lambda shift: range_loss(samples, -shift, reach - shift, bits), 0.0, reach)

    whole = high - low
    reach, _ = bounded_minimum(lambda reach: best_shift(reach)[1], _least(whole), whole)
    shift, _ = best_shift(reach)
    return max(low, -shift), min(high, reach - shift)


def calibrate_uniform_published(batches: Sequence[np.ndarray], bits: int) -> UniformParams:
    """Return the uniform quantizer of the searched ranges of all images, averaged.

    Parameters
    ----------
    batches : sequence of numpy.ndarray
        One array of float32 values an image.
    bits : int
        Code width.

    Raises
    ------
    CalibrationError
        If there are no images, or samples are none or not finite.
    """
    if not len(batches):
        check_samples(np.empty(0), "searched uniform")
    ends = np.mean([search_range(batch, bits) for batch in batches], axis=0)
    return uniform_from_range(ends[0], ends[1], bits)


def _least(reach: float) -> float:
    """Return the published lower bound of a searched range."""
    return min(0.1, 0.01 * reach)


def _thin(samples: np.ndarray) -> np.ndarray:
    if samples.size <= _SAMPLE_LIMIT:
        return samples
    picked = np.random.default_rng(0).integers(0, samples.size, _SAMPLE_LIMIT)
    return samples[np.append(picked, [samples.argmin(), samples.argmax()])]
