"""AGQ: adaptive granularity quantizer of softmax outputs, by powers of two; PTQ4SAM (arXiv 2405.03144).

Formulas are in docs/quantizers.md#agq. Deployed as an 8-bit table with as many values as the bits hold; the
published form, with one value too many, is in :mod:`tvm_ahcq.quantizers.published.agq`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.core.params import check_bits, check_scales, register, to_float32

from .softmax_table import SoftmaxTableParams, check_softmax_samples, search_table, table_loss, thin_softmax_samples

TAUS = (1, 2, 4)
"""The published candidates: levels an octave."""


@register("agq")
@dataclass(frozen=True)
class AgqParams(SoftmaxTableParams):
    """Values 0 and ``scale * 2**(-k / tau)``, k from 0 to ``2**bits - 2``; k rounds in the log domain.

    Codes ascend with the value: code 0 is the value 0, the highest code has k = 0. Values are rounded to multiples of
    ``scale / 255``.

    Attributes
    ----------
    bits : int
        Code width.
    tau : int
        Levels an octave, at least 1.
    scale : float
        Value of the highest code, in (0, 1].
    """

    bits: int
    tau: int
    scale: float

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales([self.scale])
        if isinstance(self.tau, bool) or int(self.tau) != self.tau or self.tau < 1:
            raise ValueError(f"tau is {self.tau!r}; expected a whole number, 1 or more.")
        object.__setattr__(self, "tau", int(self.tau))
        object.__setattr__(self, "scale", to_float32(self.scale))

    def thresholds(self) -> np.ndarray:
        """Return ``(n,)`` float64 T_c, ascending: p has a code of at least c if and only if ``p >= T_c``.

        The formula has no ties: the boundaries' exponents are odd multiples of ``1 / (2 tau)``, never whole.
        """
        return boundaries(self.bits, self.tau, float(np.float32(self.scale)))

    def table(self) -> np.ndarray:
        """Return ``(n + 1,)`` uint8 operands, ascending from 0 to 255; low entries may coincide."""
        return table_entries(self.bits, self.tau)


def boundaries(bits: int, tau: int, scale: float) -> np.ndarray:
    """Return ``(2**bits - 1,)`` float64 probabilities at which the code steps from c - 1 to c."""
    exponent = np.arange(2**bits - 2, -1, -1)
    return scale * np.exp2(-(exponent + 0.5) / tau)


def table_entries(bits: int, tau: int) -> np.ndarray:
    """Return ``(2**bits,)`` uint8 values of the codes in units of ``scale / 255``, half to even."""
    exponent = np.arange(2**bits - 2, -1, -1)
    return np.concatenate([[0], np.rint(255 * np.exp2(-exponent / tau))]).astype(np.uint8)


def calibrate_agq(probs: np.ndarray, values: np.ndarray | None, bits: int) -> AgqParams:
    """Return the quantizer of least mean ``|(P_q - P) V|**2.4`` among three tau and all scales.

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
    probs, values, top = check_softmax_samples(probs, values, "AGQ")
    if top <= 0:
        return AgqParams(bits, 1, 1.0)
    probs, values = thin_softmax_samples(probs, values)

    tau, fraction = search_table(
        lambda tau, fraction: deployed_loss(probs, values, bits, tau, top * fraction),
        TAUS,
        np.geomspace(1.0, 0.05, 24),
        lambda fraction: np.clip(fraction * np.geomspace(0.9, 1.1, 11), 0.01, 1),
        leaders=4,
    )
    return AgqParams(bits, tau, top * fraction)


def deployed_loss(probs: np.ndarray, values: np.ndarray | None, bits: int, tau: int, scale: float) -> float:
    """Return the mean ``|(P_q - P) V|**2.4`` of the deployed table; without V, the mean ``|P_q - P|**2.4``."""
    scale = float(np.float32(scale))
    return table_loss(probs, values, boundaries(bits, tau, scale), table_entries(bits, tau), scale)
