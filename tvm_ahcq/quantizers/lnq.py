"""LNQ: logarithmic non-uniform quantizer of softmax outputs, deployed as an 8-bit table (QUANTIZERS 6.3).

The published form, with its one code too many, is in :mod:`.lnq_published`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .codebook import Codebook, float32_below
from .params import QuantizerParams, check_bits, check_samples, check_scales, register, to_float32

ALPHAS = (0.001, 0.1, 1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
"""The published candidates for alpha."""

LOSS_POWER = 2.4

_SAMPLE_LIMIT = 1 << 17


@register("lnq")
@dataclass(frozen=True)
class LnqParams(QuantizerParams):
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

    @property
    def operand_scale(self) -> float:
        """Probability that one unit of the table stands for: ``scale / 255`` in float32."""
        return to_float32(np.float32(self.scale) / np.float32(255))

    def thresholds(self) -> np.ndarray:
        """``(n,)`` float64 T_c, ascending: p is given a code of at least c exactly if ``p >= T_c``.

        (A true tie of the formula would round half to even; the boundaries are transcendental, so there is none.)
        """
        return boundaries(self.bits, self.alpha, float(np.float32(self.scale)))

    def table(self) -> np.ndarray:
        """``(n + 1,)`` uint8 operands, ascending from 0 to 255; low entries may coincide."""
        return table_entries(self.bits, self.alpha, float(np.float32(self.scale)))

    def codebook(self) -> Codebook:
        """The staircase for float32 probabilities; the same codes as :meth:`thresholds`."""
        return Codebook(float32_below(self.thresholds()), self.table(), self.operand_scale)

    def codebooks(self) -> tuple[Codebook, ...]:
        """One codebook a channel group (here: one)."""
        return (self.codebook(),)

    def encode(self, p: np.ndarray) -> np.ndarray:
        """Codes of probabilities, uint8."""
        return self.codebook().encode(p)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Float32 values of `codes`."""
        return self.codebook().decode(codes)

    def fake_quant(self, p: np.ndarray) -> np.ndarray:
        """Probabilities rounded to representable values, float32."""
        return self.codebook().fake_quant(p)


def boundaries(bits: int, alpha: float, scale: float) -> np.ndarray:
    """``(n,)`` float64 probabilities at which the code steps from c - 1 to c."""
    n = 2**bits - 1
    return np.expm1((np.arange(1, n + 1) - 0.5) * np.log1p(alpha * scale) / n) / alpha


def table_entries(bits: int, alpha: float, scale: float) -> np.ndarray:
    """``(n + 1,)`` uint8: values of the codes in units of ``scale / 255``, half to even."""
    n = 2**bits - 1
    values = np.expm1(np.arange(n + 1) * np.log1p(alpha * scale) / n) / alpha
    return np.clip(np.rint(255 * values / scale), 0, 255).astype(np.uint8)


def calibrate_lnq(probs: np.ndarray, values: np.ndarray | None, bits: int) -> LnqParams:
    """The alpha (of nine) and scale of least mean ``|(P_q - P) V|**2.4``, P_q from the deployed 8-bit table.

    Parameters
    ----------
    probs : numpy.ndarray
        ``(S, R, K)`` float32 softmax outputs: S slices (image, window, head), R queries, K keys.
    values : numpy.ndarray or None
        ``(S, K, d)`` float32, the V that each slice multiplies; without it the loss is mean ``|P_q - P|**2.4``.
    bits : int
        Code width.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    probs = check_samples(probs, "LNQ")
    if values is not None:
        values = check_samples(values, "LNQ")
    if probs.ndim != 3 or (values is not None and values.shape[:2] != (probs.shape[0], probs.shape[2])):
        given = None if values is None else values.shape
        raise ValueError(f"probs {probs.shape}, values {given}; expected (S, R, K) and (S, K, d).")
    top = min(float(probs.max()), 1.0)
    if top <= 0:
        return LnqParams(bits, 1.0, 1.0)
    probs, values = _thin(probs, values)

    def search(fractions: np.ndarray, alphas: tuple[float, ...]) -> list[tuple[float, float, float]]:
        tried = [(a, f) for a in alphas for f in fractions]
        return sorted((deployed_loss(probs, values, bits, a, top * f), a, f) for a, f in tried)

    # the loss is jagged in the scale, so the neighbourhoods of several leaders are looked at
    ranked = search(np.linspace(1.0, 0.1, 19), ALPHAS)
    nearby = np.linspace(-0.04, 0.04, 11)
    refined = [search(np.clip(fraction + nearby, 0.05, 1.0), (alpha,))[0] for _, alpha, fraction in ranked[:6]]
    _, alpha, fraction = min(refined + ranked[:1])
    return LnqParams(bits, alpha, top * fraction)


def deployed_loss(probs: np.ndarray, values: np.ndarray | None, bits: int, alpha: float, scale: float) -> float:
    """Mean ``|(P_q - P) V|**2.4`` of the deployed table (without V: mean ``|P_q - P|**2.4``)."""
    scale = float(np.float32(scale))
    levels = table_entries(bits, alpha, scale).astype(np.float32) * np.float32(scale / 255)
    codes = np.searchsorted(float32_below(boundaries(bits, alpha, scale)), probs)
    error = levels[codes] - probs
    return power_loss(error if values is None else error @ values)


def power_loss(error: np.ndarray) -> float:
    """Mean of ``|error|**2.4``."""
    return float(np.mean(np.abs(error) ** np.float32(LOSS_POWER), dtype=np.float64))


def _thin(probs: np.ndarray, values: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """At most about 2**17 probabilities: whole rows of random (seeded) slices and queries."""
    slices, rows, keys = probs.shape
    rng = np.random.default_rng(0)
    keep = max(1, _SAMPLE_LIMIT // keys)
    chosen_slices = np.sort(rng.permutation(slices)[: max(1, min(slices, keep // min(rows, 8)))])
    chosen_rows = np.sort(rng.permutation(rows)[: max(1, keep // len(chosen_slices))])
    probs = probs[np.ix_(chosen_slices, chosen_rows)]
    return probs, None if values is None else values[chosen_slices]
