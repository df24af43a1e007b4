"""AGQ as published: ``2**bits + 1`` values, and the search of its observer; see docs/quantizers.md#agq.

Beside the ``2**bits`` powers there is a zero, one code more than the bits hold; `extra` False drops the least power.
:mod:`tvm_ahcq.quantizers.activation.agq` is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ahcq.quantizers.activation.agq import TAUS
from tvm_ahcq.quantizers.activation.softmax_table import power_loss

from .softmax_search import SoftmaxSearch, search_scales


def encode_published(p: np.ndarray, bits: int, tau: int, scale: float, extra: bool = True) -> np.ndarray:
    """Return codes of probabilities, uint8: the exponent k, and the number of powers for zero.

    Parameters
    ----------
    p : numpy.ndarray
        Probabilities, any shape.
    bits, tau, scale
        The quantizer.
    extra : bool
        The published code's fault: ``2**bits`` powers beside the zero; otherwise ``2**bits - 1``.
    """
    powers = 2**bits - (not extra)
    ratio = np.maximum(np.asarray(p, np.float32), np.float32(1e-20)) / np.float32(scale)
    return np.clip(np.rint(np.float32(-tau) * np.log2(ratio)), 0, powers).astype(np.uint16).astype(_code_type(powers))


def table_published(bits: int, tau: int, scale: float, extra: bool = True) -> np.ndarray:
    """Return float32 values by code, descending; the last is 0. Parameters as for :func:`encode_published`."""
    powers = 2**bits - (not extra)
    return np.append(scale * np.exp2(-np.arange(powers) / tau), 0).astype(np.float32)


def observer_loss(
    probs: np.ndarray, values: np.ndarray | None, bits: int, tau: int, scale: float, extra: bool = True
) -> float:
    """Return the mean ``|(P_q - P) V|**2.4``; without V, of ``P_q - P``.

    Shapes are ``(..., R, K)`` and ``(..., K, d)``, float32.
    """
    table = table_published(bits, tau, scale, extra)
    error = table[encode_published(probs, bits, tau, scale, extra)] - probs
    return power_loss(error if values is None else error @ values)


def search_published(
    probs: Sequence[np.ndarray], values: Sequence[np.ndarray] | None, bits: int, extra: bool = True
) -> SoftmaxSearch:
    """Search the best scale of each tau in ``TAUS`` as the published observer does."""
    return search_scales(
        probs,
        values,
        TAUS,
        lambda batch, batch_values, tau, scale: observer_loss(batch, batch_values, bits, tau, scale, extra),
        least_scale=lambda top: min(0.1, 0.01 * top),
    )


def _code_type(powers: int) -> type:
    """Return the unsigned type that holds the code of zero (at 8 bits the extra value does not fit a byte)."""
    return np.uint8 if powers <= 255 else np.uint16
