"""Interval tables: a non-linearity fused with the quantizer after it, piecewise constant in the pre-activation.

See docs/quantizers.md#interval-tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .codebook import Codebook, last_float32

_LIMIT = float(np.finfo(np.float32).max)

GELU_ARGMIN = float(np.float32(-0.7517915964126587))
"""The float32 nearest to GELU's only minimum: GELU falls before it and rises after it."""


def gelu(x: np.ndarray) -> np.ndarray:
    """Return ``x Phi(x)`` in float64, erf form; erfc keeps the far left tail accurate."""
    x = np.asarray(x, np.float64)
    return 0.5 * x * _erfc(-x * math.sqrt(0.5))


def relu(x: np.ndarray) -> np.ndarray:
    """Return ``max(x, 0)`` in float64."""
    return np.maximum(np.asarray(x, np.float64), 0.0)


def _identity(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


_erfc = np.vectorize(math.erfc, otypes=[np.float64])

_ACTIVATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float | None]] = {
    "gelu": (gelu, GELU_ARGMIN),
    "relu": (relu, None),
    "identity": (_identity, None),
}
"""Name -> (function, argument of its minimum; None if it never falls)."""


def interval_encoder(codebook: Codebook, activation: str) -> tuple[np.ndarray, np.ndarray]:
    """Return thresholds and operands of ``codebook(activation(x))`` as a function of the float32 pre-activation x.

    The activation is evaluated in float64 and compared with the codebook's thresholds, so the result is exact up to
    one unit in the last place of x; the returned table is the definition that every executor uses
    (``reference.encode_intervals``).

    Parameters
    ----------
    codebook : Codebook
        Quantizer of the activation's output.
    activation : {"gelu", "relu", "identity"}
        GELU is the erf form.

    Returns
    -------
    thresholds : numpy.ndarray
        ``(k,)`` float32, finite, strictly ascending; k is at most 2 (n - 1) for GELU, n - 1 otherwise.
    operands : numpy.ndarray
        ``(k + 1,)`` uint8; neighbours differ.

    Raises
    ------
    ValueError
        If the activation is unknown.
    """
    if activation not in _ACTIVATIONS:
        raise ValueError(f"Activation {activation!r} is unknown; expected one of {', '.join(_ACTIVATIONS)}.")
    function, minimum = _ACTIVATIONS[activation]
    levels = codebook.thresholds.astype(np.float64)
    bottom = -_LIMIT if minimum is None else minimum
    crossings = [last_float32(lambda x: function(x) <= levels, bottom, _LIMIT, levels.size)]
    if minimum is not None:
        # where the function falls, the last x whose value exceeds the level
        crossings.append(last_float32(lambda x: function(x) > levels, -_LIMIT, minimum, levels.size))
    thresholds = np.unique(np.concatenate(crossings))
    thresholds = thresholds[np.isfinite(thresholds)]
    # each interval includes its right end, so the operand there is the operand of the whole interval
    ends = np.append(thresholds, np.float32(_LIMIT))
    operands = codebook.operands(codebook.encode(function(ends)))
    changes = operands[1:] != operands[:-1]
    return thresholds[changes], np.append(operands[:-1][changes], operands[-1])
