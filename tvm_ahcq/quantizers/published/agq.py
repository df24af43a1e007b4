"""AGQ as published: ``2**bits + 1`` values, and the search of its observer; see docs/quantizers.md#agq.

Beside the ``2**bits`` powers there is a zero, one code more than the bits hold; `extra` False drops the least power.
:mod:`tvm_ahcq.quantizers.activation.agq` is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ahcq.quantizers.activation.agq import TAUS
from tvm_ahcq.quantizers.activation.softmax_table import power_loss

from .brent import bounded_minimum


def encode_published(p: np.ndarray, bits: int, tau: int, scale: float, extra: bool = True) -> np.ndarray:
    """Codes of probabilities, uint8: the exponent k, and the number of powers for zero.

    Parameters
    ----------
    p : numpy.ndarray
        Probabilities, any shape.
    bits, tau, scale
        The quantizer.
    extra : bool
        The published code's slip: ``2**bits`` powers beside the zero; otherwise ``2**bits - 1``.
    """
    powers = 2**bits - (not extra)
    ratio = np.maximum(np.asarray(p, np.float32), np.float32(1e-20)) / np.float32(scale)
    return np.clip(np.rint(np.float32(-tau) * np.log2(ratio)), 0, powers).astype(np.uint16).astype(_code_type(powers))


def table_published(bits: int, tau: int, scale: float, extra: bool = True) -> np.ndarray:
    """Float32 values by code, descending; the last is 0. Parameters as for :func:`encode_published`."""
    powers = 2**bits - (not extra)
    return np.append(scale * np.exp2(-np.arange(powers) / tau), 0).astype(np.float32)


def observer_loss(
    probs: np.ndarray, values: np.ndarray | None, bits: int, tau: int, scale: float, extra: bool = True
) -> float:
    """Mean ``|(P_q - P) V|**2.4``; without V, of ``P_q - P``. Shapes ``(..., R, K)`` and ``(..., K, d)``, float32."""
    table = table_published(bits, tau, scale, extra)
    error = table[encode_published(probs, bits, tau, scale, extra)] - probs
    return power_loss(error if values is None else error @ values)


def search_published(
    probs: Sequence[np.ndarray], values: Sequence[np.ndarray] | None, bits: int, extra: bool = True
) -> tuple[np.ndarray, np.ndarray, int]:
    """The observer's search: for each batch and tau the best scale; losses are summed, scales averaged over batches.

    Returns
    -------
    scales, errors : numpy.ndarray
        ``(3,)`` float64 for ``TAUS``.
    chosen : int
        Index of the tau with the least summed loss.
    """
    scales, errors = np.zeros(len(TAUS)), np.zeros(len(TAUS))
    for i, batch in enumerate(probs):
        v = None if values is None else values[i]
        top = float(batch.max())
        for j, tau in enumerate(TAUS):

            def loss(scale: float, batch: np.ndarray = batch, v: np.ndarray | None = v, tau: int = tau) -> float:
                return observer_loss(batch, v, bits, tau, scale, extra)

            scale, error = bounded_minimum(loss, min(0.1, 0.01 * top), top)
            scales[j] += scale / len(probs)
            errors[j] += error
    return scales, errors, int(errors.argmin())


def _code_type(powers: int) -> type:
    """The unsigned type that holds the code of zero (at 8 bits the extra value does not fit a byte)."""
    return np.uint8 if powers <= 255 else np.uint16
