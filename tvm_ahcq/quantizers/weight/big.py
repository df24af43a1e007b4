"""BIG, the mathematics: detect keys whose values have two peaks, and the channel signs that leave one; PTQ4SAM.

arXiv 2405.03144; see docs/quantizers.md#big. The rows of k_proj and q_proj take the same signs, so q.k does not
change, while k becomes narrower for its quantizer. :mod:`tvm_ahcq.calibrate.fold_key_signs` runs it on a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.core.params import check_samples

POINTS = 128
"""Points at which the density is estimated, from the least to the greatest value."""

MIN_HEIGHT = 0.01
"""Least height of a peak, as a share of the sum of the densities."""

MIN_DISTANCE = 32
"""Least distance of two peaks, in points."""

_CHUNK = 1 << 15


@dataclass(frozen=True, eq=False)
class Density:
    """Estimated density of a tensor's values.

    Attributes
    ----------
    points : numpy.ndarray
        ``(128,)`` float32, equally spaced from the least to the greatest value.
    density : numpy.ndarray
        ``(128,)`` float64.
    peaks : numpy.ndarray
        Indices of the accepted peaks, ascending.
    """

    points: np.ndarray
    density: np.ndarray
    peaks: np.ndarray

    @property
    def bimodal(self) -> bool:
        """True if there are exactly two peaks."""
        return self.peaks.size == 2


def estimate_density(values: np.ndarray) -> Density:
    """Return the Gaussian kernel density of all values (bandwidth after Scott, 1992) and its peaks.

    Parameters
    ----------
    values : numpy.ndarray
        Any shape, float32. Constant values have density 0 everywhere and no peak.

    Raises
    ------
    CalibrationError
        If there are none, or some are not finite.
    """
    values = check_samples(values, "key").reshape(-1)
    points = np.linspace(values.min(), values.max(), POINTS, dtype=np.float32)
    density = np.zeros(POINTS)
    spread = values.std(ddof=1, dtype=np.float64) if values.size > 1 else 0.0
    if spread > 0:
        width = spread * values.size**-0.2
        for start in range(0, values.size, _CHUNK):
            distance = (points[:, None] - values[start : start + _CHUNK].astype(np.float64)) / width
            density += np.exp(-0.5 * distance**2).sum(1)
        density /= values.size * width * np.sqrt(2 * np.pi)
    return Density(points, density, find_peaks(density, MIN_HEIGHT * density.sum(), MIN_DISTANCE))


def find_peaks(density: np.ndarray, height: float, distance: int) -> np.ndarray:
    """Return the indices of local maxima of at least `height`; of two nearer than `distance` the higher stays.

    A flat top counts once, at its middle; the two ends are not maxima.
    """
    changes = np.flatnonzero(np.diff(density)) + 1
    starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [density.size]]) - 1
    level = density[starts]
    inner = np.arange(1, max(level.size - 1, 1))
    tops = inner[(level[inner] > level[inner - 1]) & (level[inner] > level[np.minimum(inner + 1, level.size - 1)])]
    candidates = (starts[tops] + ends[tops]) // 2
    candidates = candidates[density[candidates] >= height]
    peaks: list[int] = []
    for candidate in candidates[np.argsort(-density[candidates], kind="stable")]:
        if all(abs(candidate - peak) >= distance for peak in peaks):
            peaks.append(int(candidate))
    return np.sort(np.array(peaks, np.int64))


def channel_signs(keys: np.ndarray, *, zero_erases: bool = False) -> np.ndarray:
    """Return the sign of each channel's mean, ``(C,)`` int8.

    Parameters
    ----------
    keys : numpy.ndarray
        ``(..., C)`` float32, before the split into heads.
    zero_erases : bool
        The published code's fault: a channel whose mean is exactly 0 has sign 0, which erases it, instead of 1.

    Raises
    ------
    CalibrationError
        If there are none, or some are not finite.
    """
    keys = check_samples(keys, "key")
    signs = np.sign(keys.reshape(-1, keys.shape[-1]).mean(0, dtype=np.float64)).astype(np.int8)
    return signs if zero_erases else np.where(signs == 0, np.int8(1), signs)
