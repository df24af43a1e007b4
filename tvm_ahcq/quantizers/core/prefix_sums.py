"""Squared errors of many codebooks on one sample set, from prefix sums of the sorted samples.

See docs/quantizers.md#codebooks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE_LIMIT = 1 << 19
"""Larger sample sets are thinned to about this many (the extremes are kept)."""


@dataclass(frozen=True, eq=False)
class PrefixSums:
    """Sorted samples with prefix sums of weight, weight * x and weight * x**2.

    Attributes
    ----------
    values : numpy.ndarray
        ``(N,)`` float32, ascending.
    sums : numpy.ndarray
        ``(3, N + 1)`` float64.
    """

    values: np.ndarray
    sums: np.ndarray

    @property
    def low(self) -> float:
        """The least sample."""
        return float(self.values[0])

    @property
    def high(self) -> float:
        """The greatest sample."""
        return float(self.values[-1])

    def squared_error(self, thresholds: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Return the weighted sum of squared errors of many staircases at once.

        Parameters
        ----------
        thresholds : numpy.ndarray
            ``(..., n - 1)``, ascending along the last axis.
        levels : numpy.ndarray
            ``(..., n)`` float64 values between them.

        Returns
        -------
        numpy.ndarray
            ``(...)`` float64.
        """
        cuts = np.empty((*levels.shape[:-1], levels.shape[-1] + 1), np.intp)
        cuts[..., 0], cuts[..., -1] = 0, self.values.size
        cuts[..., 1:-1] = np.searchsorted(self.values, np.asarray(thresholds, np.float32), side="left")
        weight, first, second = np.diff(self.sums[:, cuts])
        return (second - 2 * levels * first + levels**2 * weight).sum(-1)


def prefix_sums(samples: np.ndarray, importance: np.ndarray | None = None) -> PrefixSums:
    """Return the prefix sums of samples, thinned at random (seeded) if there are more than ``SAMPLE_LIMIT``.

    Parameters
    ----------
    samples : numpy.ndarray
        Any shape, float32, finite, at least one.
    importance : numpy.ndarray, optional
        ``(C,)`` weight of each channel (last axis of `samples`); 1 if not given.
    """
    flat = samples.reshape(-1)
    picked = None
    if flat.size > SAMPLE_LIMIT:
        picked = np.random.default_rng(0).integers(0, flat.size, SAMPLE_LIMIT)
        picked = np.append(picked, [flat.argmin(), flat.argmax()])
        flat = flat[picked]
    if importance is None:
        return prefix_sums_of_sorted(np.sort(flat), np.ones(flat.size))
    channel = np.arange(flat.size) if picked is None else picked
    order = np.argsort(flat)
    return prefix_sums_of_sorted(flat[order], np.asarray(importance, np.float64)[channel[order] % samples.shape[-1]])


def prefix_sums_of_sorted(values: np.ndarray, weights: np.ndarray) -> PrefixSums:
    """Return the prefix sums of samples in ascending order, with one weight each."""
    sums = np.zeros((3, values.size + 1))
    wide = values.astype(np.float64)
    for row, term in enumerate((weights, weights * wide, weights * wide * wide)):
        np.cumsum(term, out=sums[row, 1:])
    return PrefixSums(values, sums)
