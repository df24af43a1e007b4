"""Histograms of the values at a quantization site, for plots against the levels of its quantizer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 60
"""Bars of a histogram."""

LEAST_PROBABILITY = 1e-6
"""Where the axis of a logarithmic histogram begins; what lies below is counted apart."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Shares of values that fall between neighbouring edges.

    Attributes
    ----------
    edges : numpy.ndarray
        ``(BINS + 1,)`` float64, ascending.
    shares : numpy.ndarray
        ``(BINS,)`` float64; with `below` they add up to 1.
    log : bool
        Whether the edges are equally spaced on a logarithmic axis.
    below : float
        Share under the first edge (logarithmic axes only).
    """

    edges: np.ndarray
    shares: np.ndarray
    log: bool = False
    below: float = 0.0


def linear_histogram(values: np.ndarray) -> Histogram:
    """Histogram between the least and the greatest of `values` (at least one, finite)."""
    values = np.asarray(values, np.float64).ravel()
    low, high = float(values.min()), float(values.max())
    reach = max(abs(low), abs(high), 1e-30)
    if high - low < 1e-6 * reach:  # a constant: one bar in the middle
        low, high = low - 0.5 * reach, high + 0.5 * reach
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    return Histogram(edges, counts / values.size)


def log_histogram(values: np.ndarray) -> Histogram:
    """Histogram of probabilities from ``LEAST_PROBABILITY`` to 1, on a logarithmic axis."""
    values = np.asarray(values, np.float64).ravel()
    edges = np.geomspace(LEAST_PROBABILITY, 1.0, BINS + 1)
    shown = np.minimum(values[values >= LEAST_PROBABILITY], 1.0)
    counts, _ = np.histogram(shown, bins=edges)
    return Histogram(edges, counts / values.size, log=True, below=1 - shown.size / values.size)
