"""The published search for the parameters of a softmax quantizer; see docs/quantizers.md#softmax-tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from .brent import bounded_minimum

Shape = TypeVar("Shape", int, float)


class SoftmaxSearch(NamedTuple):
    """Result of a search.

    Attributes
    ----------
    scales : numpy.ndarray
        ``(n,)`` float64 scale of each shape parameter, averaged over batches.
    errors : numpy.ndarray
        ``(n,)`` float64 loss of each shape parameter, summed over batches.
    chosen : int
        Index of the shape parameter with the least loss.
    """

    scales: np.ndarray
    errors: np.ndarray
    chosen: int


def search_scales(
    probs: Sequence[np.ndarray],
    values: Sequence[np.ndarray] | None,
    shapes: Sequence[Shape],
    loss: Callable[[np.ndarray, np.ndarray | None, Shape, float], float],
    least_scale: Callable[[float], float],
) -> SoftmaxSearch:
    """Search the best scale for each batch and shape parameter.

    Parameters
    ----------
    probs : sequence of numpy.ndarray
        ``(..., R, K)`` float32 softmax outputs, one array a batch.
    values : sequence of numpy.ndarray or None
        ``(..., K, d)`` float32 values that they multiply.
    shapes : sequence
        Candidate shape parameters.
    loss : callable
        (probs, values, shape, scale) -> loss of one batch.
    least_scale : callable
        Greatest probability of a batch -> lower bound of its scale.
    """
    scales, errors = np.zeros(len(shapes)), np.zeros(len(shapes))
    for i, batch in enumerate(probs):
        batch_values = None if values is None else values[i]
        top = float(batch.max())
        for j, shape in enumerate(shapes):
            scale, error = bounded_minimum(partial(loss, batch, batch_values, shape), least_scale(top), top)
            scales[j] += scale / len(probs)
            errors[j] += error
    return SoftmaxSearch(scales, errors, int(errors.argmin()))
