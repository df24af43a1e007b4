"""LNQ as published: any number of steps, and the search of its observer; see docs/quantizers.md#lnq.

The published observer scores ``n = 2**bits - 1`` steps, but its quantizer then takes ``n = 2**bits``: one code more
than the bits hold. :mod:`tvm_ahcq.quantizers.activation.lnq` is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ahcq.quantizers.activation.lnq import ALPHAS
from tvm_ahcq.quantizers.activation.softmax_table import power_loss

from .softmax_search import SoftmaxSearch, search_scales


def encode_published(p: np.ndarray, alpha: float, scale: float, steps: int) -> np.ndarray:
    """Return codes 0..steps of probabilities: ``rint(steps ln(1 + alpha p) / ln(1 + alpha scale))``, uint8."""
    clipped = np.clip(np.asarray(p, np.float32), np.float32(1e-20), np.float32(scale))
    codes = np.rint(np.float32(steps / np.log1p(alpha * scale)) * np.log1p(np.float32(alpha) * clipped))
    return np.clip(codes, 0, steps).astype(np.uint8)


def table_published(alpha: float, scale: float, steps: int) -> np.ndarray:
    """Return ``(steps + 1,)`` float32 values of the codes, from 0 to `scale`."""
    return (np.expm1(np.arange(steps + 1) * np.log1p(alpha * scale) / steps) / alpha).astype(np.float32)


def observer_loss(probs: np.ndarray, values: np.ndarray | None, alpha: float, scale: float, steps: int) -> float:
    """Return the mean ``|(P_q - P) V|**2.4``; without V, of ``P_q - P``.

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


def search_published(probs: Sequence[np.ndarray], values: Sequence[np.ndarray] | None, bits: int) -> SoftmaxSearch:
    """Search the best scale of each alpha in ``ALPHAS`` as the published observer does."""
    return search_scales(
        probs,
        values,
        ALPHAS,
        lambda batch, batch_values, alpha, scale: observer_loss(batch, batch_values, alpha, scale, 2**bits - 1),
        least_scale=lambda top: max(1e-4, 0.1 * top),
    )
