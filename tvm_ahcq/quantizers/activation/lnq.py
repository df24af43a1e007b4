"""LNQ: logarithmic nonlinear quantizer of softmax outputs, deployed as an 8-bit table.

Formulas are in docs/quantizers.md#lnq. The published form, with one code too many, is in
:mod:`tvm_ahcq.quantizers.published.lnq`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.core.params import check_bits, check_scales, register, to_float32

from .softmax_table import SoftmaxTableParams, check_softmax_samples, search_table, table_loss, thin_softmax_samples

ALPHAS = (0.001, 0.1, 1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
"""The published candidates for alpha."""


@register("lnq")
@dataclass(frozen=True)
class LnqParams(SoftmaxTableParams):
    """``code = rint(n ln(1 + alpha p) / ln(1 + alpha scale))`` clipped to n, ``n = 2**bits - 1``.

    Its value ``expm1(code ln(1 + alpha scale) / n) / alpha`` is rounded to a multiple of ``scale / 255``.

    Attributes
    ----------
    bits : int
        Code width.
    alpha : float
        Curvature: larger is finer near 0.
    scale : float
        Value of the highest code, in (0, 1].
    """

    bits: int
    alpha: float
    scale: float

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales([self.alpha], "alpha")
        check_scales([self.scale])
        object.__setattr__(self, "alpha", to_float32(self.alpha))
        object.__setattr__(self, "scale", to_float32(self.scale))

    def thresholds(self) -> np.ndarray:
        """Return ``(n,)`` float64 T_c, ascending: p has a code of at least c if and only if ``p >= T_c``.

        The formula has no ties, since its boundaries are transcendental.
        """
        return boundaries(self.bits, self.alpha, float(np.float32(self.scale)))

    def table(self) -> np.ndarray:
        """Return ``(n + 1,)`` uint8 operands, ascending from 0 to 255; low entries may coincide."""
        return table_entries(self.bits, self.alpha, float(np.float32(self.scale)))


def boundaries(bits: int, alpha: float, scale: float) -> np.ndarray:
    """Return ``(n,)`` float64 probabilities at which the code steps from c - 1 to c."""
    n = 2**bits - 1
    return np.expm1((np.arange(1, n + 1) - 0.5) * np.log1p(alpha * scale) / n) / alpha


def table_entries(bits: int, alpha: float, scale: float) -> np.ndarray:
    """Return ``(n + 1,)`` uint8 values of the codes in units of ``scale / 255``, half to even."""
    n = 2**bits - 1
    values = np.expm1(np.arange(n + 1) * np.log1p(alpha * scale) / n) / alpha
    return np.clip(np.rint(255 * values / scale), 0, 255).astype(np.uint8)


def calibrate_lnq(probs: np.ndarray, values: np.ndarray | None, bits: int) -> LnqParams:
    """Return the quantizer of least mean ``|(P_q - P) V|**2.4`` among nine alpha and all scales.

    Parameters
    ----------
    probs : numpy.ndarray
        ``(S, R, K)`` float32 softmax outputs: S slices (image, window, head), R queries, K keys.
    values : numpy.ndarray or None
        ``(S, K, d)`` float32, the V that each slice multiplies; without it the loss is the mean ``|P_q - P|**2.4``.
    bits : int
        Code width.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    probs, values, top = check_softmax_samples(probs, values, "LNQ")
    if top <= 0:
        return LnqParams(bits, 1.0, 1.0)
    probs, values = thin_softmax_samples(probs, values)

    alpha, fraction = search_table(
        lambda alpha, fraction: deployed_loss(probs, values, bits, alpha, top * fraction),
        ALPHAS,
        np.linspace(1.0, 0.1, 19),
        lambda fraction: np.clip(fraction + np.linspace(-0.04, 0.04, 11), 0.05, 1.0),
        leaders=6,
    )
    return LnqParams(bits, alpha, top * fraction)


def deployed_loss(probs: np.ndarray, values: np.ndarray | None, bits: int, alpha: float, scale: float) -> float:
    """Return the mean ``|(P_q - P) V|**2.4`` of the deployed table; without V, the mean ``|P_q - P|**2.4``."""
    scale = float(np.float32(scale))
    return table_loss(probs, values, boundaries(bits, alpha, scale), table_entries(bits, alpha, scale), scale)
