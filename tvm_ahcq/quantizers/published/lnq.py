"""LNQ as published: any number of steps, and the search of its observer; see docs/quantizers.md#lnq.

The published observer scores ``n = 2**bits - 1`` steps, but its quantizer then takes ``n = 2**bits``: one code more
than the bits hold. :mod:`tvm_ahcq.quantizers.activation.lnq` is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ahcq.quantizers.activation.lnq import ALPHAS
from tvm_ahcq.quantizers.activation.softmax_table import power_loss

from .brent import bounded_minimum


def encode_published(p: np.ndarray, alpha: float, scale: float, steps: int) -> np.ndarray:
    """Codes 0..steps of probabilities: ``rint(steps ln(1 + alpha p) / ln(1 + alpha scale))``, uint8."""
    clipped = np.clip(np.asarray(p, np.float32), np.float32(1e-20), np.float32(scale))
    codes = np.rint(np.float32(steps / np.log1p(alpha * scale)) * np.log1p(np.float32(alpha) * clipped))
    return np.clip(codes, 0, steps).astype(np.uint8)


def table_published(alpha: float, scale: float, steps: int) -> np.ndarray:
    """``(steps + 1,)`` float32 values of the codes, from 0 to `scale`."""
    return (np.expm1(np.arange(steps + 1) * np.log1p(alpha * scale) / steps) / alpha).astype(np.float32)


def observer_loss(probs: np.ndarray, values: np.ndarray | None, alpha: float, scale: float, steps: int) -> float:
    """Mean ``|(P_q - P) V|**2.4``; without V, of ``P_q - P``.

    Parameters
    ----------
    probs : numpy.ndarray
        ``(..., R, K)`` float32.
    values : numpy.ndarray or None
        ``(..., K, d)`` float32.
    alpha, scale, steps
        The quantizer.
    """
    error = table_published(alpha, scale, steps)[encode_published(probs, alpha, scale, steps)] - probs
    return power_loss(error if values is None else error @ values)


def search_published(
    probs: Sequence[np.ndarray], values: Sequence[np.ndarray] | None, bits: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The observer's search: for each batch and alpha the best scale; losses are summed, scales averaged over batches.

    Returns
    -------
    scales, errors : numpy.ndarray
        ``(9,)`` float64 for ``ALPHAS``.
    chosen : int
        Index of the alpha with the least summed loss.
    """
    steps = 2**bits - 1
    scales, errors = np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS))
    for i, batch in enumerate(probs):
        v = None if values is None else values[i]
        top = float(batch.max())
        for j, alpha in enumerate(ALPHAS):

            def loss(scale: float, batch: np.ndarray = batch, v: np.ndarray | None = v, alpha: float = alpha) -> float:
                return observer_loss(batch, v, alpha, scale, steps)

            scale, error = bounded_minimum(loss, max(1e-4, 0.1 * top), top)
            scales[j] += scale / len(probs)
            errors[j] += error
    return scales, errors, int(errors.argmin())
