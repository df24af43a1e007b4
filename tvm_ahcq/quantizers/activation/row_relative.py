"""Row-relative quantizer of softmax outputs: codes of ``exp(logit - row maximum)``, deployed as an 8-bit table.

A row's outputs are divided by the sum of its quantized exponentials, not of the true ones: the softmax's normalisation
is deferred, and a row's weights sum to 1 whatever the rounding. Thresholds apply to the integer difference of logits,
so no exponential, sum or logarithm precedes encoding. Formulas are in docs/quantizers.md#row-relative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.core.codebook import float32_below
from tvm_ahcq.quantizers.core.params import check_bits, check_scales, register, to_float32

from .lnq import boundaries, table_entries
from .softmax_table import SoftmaxTableParams, check_softmax_samples, thin_softmax_samples

ALPHAS = np.geomspace(0.25, 4096, 43)
"""Candidates for alpha, three an octave; the smallest is nearly uniform."""


@register("row_relative")
@dataclass(frozen=True)
class RowRelativeParams(SoftmaxTableParams):
    """Codes of ``r = p / (greatest p of the row)``: ``rint(n ln(1 + alpha r) / ln(1 + alpha))``, ``n = 2**bits - 1``.

    The greatest of a row has the highest code. Values are rounded to multiples of 1/255.

    Attributes
    ----------
    bits : int
        Code width.
    alpha : float
        Curvature: larger is finer near 0.
    """

    bits: int
    alpha: float

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales([self.alpha], "alpha")
        object.__setattr__(self, "alpha", to_float32(self.alpha))

    @property
    def operand_scale(self) -> float:
        """Ratio of one table unit: 1/255 in float32."""
        return to_float32(1 / 255)

    def thresholds(self) -> np.ndarray:
        """Return ``(n,)`` float64 T_c, ascending, below 1: r has a code of at least c if and only if ``r >= T_c``."""
        return boundaries(self.bits, self.alpha, 1.0)

    def table(self) -> np.ndarray:
        """Return ``(n + 1,)`` uint8 operands, ascending from 0 to 255; low entries may coincide."""
        return table_entries(self.bits, self.alpha, 1.0)

    def encode(self, p: np.ndarray) -> np.ndarray:
        """Return codes of rows of probabilities, ``(..., keys)`` -> uint8; only their ratios matter."""
        return self.codebook().encode(_relative(p))

    def fake_quant(self, p: np.ndarray) -> np.ndarray:
        """Return rows of probabilities, each rounded and divided by its sum, float32; a row of zeros stays 0."""
        values = self.decode(self.encode(p))
        return values / np.maximum(values.sum(-1, keepdims=True), np.float32(1 / 255))


def _relative(p: np.ndarray) -> np.ndarray:
    """Return rows divided by their maximum, float32."""
    p = np.asarray(p, np.float32)
    top = p.max(-1, keepdims=True)
    return p / np.where(top > 0, top, np.float32(1))


def calibrate_row_relative(probs: np.ndarray, values: np.ndarray | None, bits: int) -> RowRelativeParams:
    """Return the quantizer of least mean squared error of the attention's output.

    Parameters
    ----------
    probs : numpy.ndarray
        ``(S, R, K)`` float32 softmax outputs: S slices (image, window, head), R queries, K keys. Rows of zeros are
        padding.
    values : numpy.ndarray or None
        ``(S, K, d)`` float32, the V that each slice multiplies; without it the error is that of the probabilities.
    bits : int
        Code width.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    probs, values, _ = check_softmax_samples(probs, values, "row-relative softmax")
    probs, values = thin_softmax_samples(probs, values)
    relative = _relative(probs)
    exact = probs if values is None else probs @ values

    def loss(alpha: float) -> float:
        levels = table_entries(bits, alpha, 1.0).astype(np.float32)
        operands = levels[np.searchsorted(float32_below(boundaries(bits, alpha, 1.0)), relative)]
        weighted = operands if values is None else operands @ values
        return float(
            np.mean((weighted / np.maximum(operands.sum(-1, keepdims=True), 1) - exact) ** 2, dtype=np.float64)
        )

    return RowRelativeParams(bits, float(min(ALPHAS, key=loss)))
