"""Base of the quantizers of softmax outputs: an unsigned 8-bit table, its loss and the search for its parameters.

See docs/quantizers.md#softmax-tables.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeVar

import numpy as np

from tvm_ahcq.quantizers.core.codebook import Codebook, float32_below
from tvm_ahcq.quantizers.core.params import QuantizerParams, check_samples, to_float32

Shape = TypeVar("Shape", int, float)

LOSS_POWER = 2.4
"""Exponent of the published loss."""

_SAMPLE_LIMIT = 1 << 17


class SoftmaxTableParams(QuantizerParams):
    """Base of staircases of probabilities: ``value = operand_scale * table[code]``, code = thresholds reached.

    Subclasses have the fields `bits` and `scale`, the value of the highest code, or their own :attr:`operand_scale`.
    """

    bits: int
    scale: float

    @property
    def operand_scale(self) -> float:
        """Probability of one table unit: ``scale / 255`` in float32."""
        return to_float32(np.float32(self.scale) / np.float32(255))

    @abstractmethod
    def thresholds(self) -> np.ndarray:
        """Return ``(n,)`` float64 T_c, ascending: p has a code of at least c if and only if ``p >= T_c``."""

    @abstractmethod
    def table(self) -> np.ndarray:
        """Return ``(n + 1,)`` uint8 operands, ascending from 0 to 255; low entries may coincide."""

    def codebook(self) -> Codebook:
        """Return the staircase for float32 probabilities; its codes are those of :meth:`thresholds`."""
        return Codebook(float32_below(self.thresholds()), self.table(), self.operand_scale)

    def codebooks(self) -> tuple[Codebook, ...]:
        """Return the codebook of the only channel group."""
        return (self.codebook(),)

    def encode(self, p: np.ndarray) -> np.ndarray:
        """Return codes of probabilities, uint8."""
        return self.codebook().encode(p)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return float32 values of `codes`."""
        return self.codebook().decode(codes)

    def fake_quant(self, p: np.ndarray) -> np.ndarray:
        """Return probabilities rounded to representable values, float32."""
        return self.codebook().fake_quant(p)


def check_softmax_samples(
    probs: np.ndarray, values: np.ndarray | None, what: str
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Return calibration samples as float32, and the greatest probability (at most 1).

    Parameters
    ----------
    probs : numpy.ndarray
        ``(S, R, K)`` softmax outputs: S slices (image, window, head), R queries, K keys.
    values : numpy.ndarray or None
        ``(S, K, d)``, the V that each slice multiplies.
    what : str
        Name of the quantizer, for messages.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    probs = check_samples(probs, what)
    if values is not None:
        values = check_samples(values, what)
    if probs.ndim != 3 or (values is not None and values.shape[:2] != (probs.shape[0], probs.shape[2])):
        given = None if values is None else values.shape
        raise ValueError(f"probs {probs.shape}, values {given}; expected (S, R, K) and (S, K, d).")
    return probs, values, min(float(probs.max()), 1.0)


def table_loss(
    probs: np.ndarray, values: np.ndarray | None, thresholds: np.ndarray, table: np.ndarray, scale: float
) -> float:
    """Return the mean ``|(P_q - P) V|**2.4`` of a deployed table; without V, the mean ``|P_q - P|**2.4``."""
    levels = table.astype(np.float32) * np.float32(scale / 255)
    error = levels[np.searchsorted(float32_below(thresholds), probs)] - probs
    return power_loss(error if values is None else error @ values)


def power_loss(error: np.ndarray) -> float:
    """Return the mean of ``|error|**2.4``."""
    return float(np.mean(np.abs(error) ** np.float32(LOSS_POWER), dtype=np.float64))


def thin_softmax_samples(probs: np.ndarray, values: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return at most about 2**17 probabilities and their values: whole rows of random (seeded) slices and queries."""
    slices, rows, keys = probs.shape
    rng = np.random.default_rng(0)
    keep = max(1, _SAMPLE_LIMIT // keys)
    chosen_slices = np.sort(rng.permutation(slices)[: max(1, min(slices, keep // min(rows, 8)))])
    chosen_rows = np.sort(rng.permutation(rows)[: max(1, keep // len(chosen_slices))])
    probs = probs[np.ix_(chosen_slices, chosen_rows)]
    return probs, None if values is None else values[chosen_slices]


def search_table(
    loss: Callable[[Shape, float], float],
    shapes: Sequence[Shape],
    coarse: np.ndarray,
    nearby: Callable[[float], np.ndarray],
    leaders: int,
) -> tuple[Shape, float]:
    """Return the shape parameter and the scale of least loss.

    The loss is jagged in the scale, so the neighbourhoods of several leaders of a coarse grid are searched.

    Parameters
    ----------
    loss : callable
        (shape, scale) -> loss; scales are shares of the greatest probability.
    shapes : sequence of float
        Candidate shape parameters.
    coarse : numpy.ndarray
        Scales of the coarse grid.
    nearby : callable
        Scales to try around a leader's.
    leaders : int
        Number of leaders.
    """

    def ranked(shapes: Sequence[Shape], scales: np.ndarray) -> list[tuple[float, Shape, float]]:
        return sorted((loss(shape, scale), shape, scale) for shape, scale in product(shapes, scales))

    first = ranked(shapes, coarse)
    refined = [ranked((shape,), nearby(scale))[0] for _, shape, scale in first[:leaders]]
    _, shape, scale = min(refined + first[:1])
    return shape, scale
