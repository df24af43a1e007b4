"""HLUQ: hybrid log-uniform quantizer of post-activation values, on one unsigned 8-bit table.

Formulas are in docs/quantizers.md#hluq. The published form, with two free scales, is in
:mod:`tvm_ahcq.quantizers.published.hluq`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.core.codebook import Codebook, float32_at_most, float32_below
from tvm_ahcq.quantizers.core.params import (
    QuantizerParams,
    check_bits,
    check_samples,
    check_scales,
    register,
    to_float32,
)
from tvm_ahcq.quantizers.core.prefix_sums import PrefixSums, prefix_sums

TABLE_MAX = 255
"""Largest table entry: an unsigned 8-bit operand."""


class TableParams(QuantizerParams):
    """Base of quantizers of post-activation values by a table: ``value = offset + delta * table[code]``."""

    bits: int
    delta: float
    offset: float

    @abstractmethod
    def codebook(self) -> Codebook:
        """Return the staircase."""

    def codebooks(self) -> tuple[Codebook, ...]:
        """Return the codebook of the only channel group."""
        return (self.codebook(),)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return codes of `x`, uint8."""
        return self.codebook().encode(x)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return float32 values of `codes`."""
        return self.codebook().decode(codes)

    def fake_quant(self, x: np.ndarray) -> np.ndarray:
        """Return `x` rounded to representable values, float32."""
        return self.codebook().fake_quant(x)


@register("hluq")
@dataclass(frozen=True)
class HluqParams(TableParams):
    """``value = offset + delta * T[code]``, ``T = 0, 2**0 .. 2**P, 2**P + step * u`` with ``P = log_levels - 1``.

    Codes round in the log domain below ``2**P`` (boundaries ``2**(j - 1/2)``) and in the linear domain above it (half
    to even), as published; with S = 2**P delta and U = step delta it is the published quantizer. Without log levels the
    table is linear, ``T = step * code``.

    Attributes
    ----------
    bits : int
        Code width.
    log_levels : int
        Number of powers of two, 0 to 8.
    step : int
        Table distance of the uniform levels.
    delta : float
        Scale of the table, float32.
    offset : float
        Value of code 0, float32. Published: the least value of the activation (0 for ReLU).
    """

    bits: int
    log_levels: int
    step: int
    delta: float
    offset: float

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales([self.delta], "delta")
        if self.step < 1 or not 0 <= self.log_levels < 2**self.bits:
            raise ValueError(f"step {self.step}, log_levels {self.log_levels}; expected a step >= 1 and 0 to 8 levels.")
        if top_entry(self.bits, self.log_levels, self.step) > TABLE_MAX:
            raise ValueError(
                f"log_levels {self.log_levels} and step {self.step} at {self.bits} bits need table entries up to "
                f"{top_entry(self.bits, self.log_levels, self.step)}; at most {TABLE_MAX} fit."
            )
        if not np.isfinite(np.float32(self.offset)):
            raise ValueError(f"offset is {self.offset!r}; expected a finite number.")
        object.__setattr__(self, "delta", to_float32(self.delta))
        object.__setattr__(self, "offset", to_float32(self.offset))

    def table(self) -> np.ndarray:
        """Return ``(2**bits,)`` uint8 operands, strictly ascending from 0."""
        return table_entries(self.bits, self.log_levels, self.step).astype(np.uint8)

    def codebook(self) -> Codebook:
        """Return the staircase; exact float64 thresholds are rounded so that no float32 changes its code."""
        delta, offset = float(np.float32(self.delta)), float(np.float32(self.offset))
        exact = offset + delta * table_boundaries(self.bits, self.log_levels, self.step)
        # half to even: the tie between uniform levels u - 1 and u goes up where u is even; log boundaries have no ties
        uniform_level = np.arange(1, 2**self.bits) - self.log_levels
        goes_up = (uniform_level > 0) & (uniform_level % 2 == 0)
        thresholds = np.where(goes_up, float32_below(exact), float32_at_most(exact))
        return Codebook(thresholds, self.table(), self.delta, self.offset)


def top_entry(bits: int, log_levels: int, step: int) -> int:
    """Return the largest table entry, ``2**P + (2**bits - log_levels - 1) * step``."""
    return _log_top(log_levels) + (2**bits - log_levels - 1) * step


def table_entries(bits: int, log_levels: int, step: int) -> np.ndarray:
    """Return the ``(2**bits,)`` int64 table: 0, powers of two, equal steps."""
    uniform = _log_top(log_levels) + step * np.arange(1, 2**bits - log_levels)
    return np.concatenate([[0], 2 ** np.arange(log_levels), uniform])


def table_boundaries(bits: int, log_levels: int, step: int) -> np.ndarray:
    """Return ``(2**bits - 1,)`` float64 boundaries: half powers of two, then midpoints of the equal steps."""
    uniform = _log_top(log_levels) + step * (np.arange(1, 2**bits - log_levels) - 0.5)
    return np.concatenate([2.0 ** (np.arange(log_levels) - 0.5), uniform])


def _log_top(log_levels: int) -> int:
    """Return the entry from which the steps are equal: the largest power of two, or 0 if there is none."""
    return 2 ** (log_levels - 1) if log_levels else 0


def table_shapes(bits: int) -> list[tuple[int, int]]:
    """Return every (log_levels, step) whose table fits in 8 bits, the linear table first."""
    hybrid = [
        (levels, step)
        for levels in range(1, min(9, 2**bits - 1))
        for step in range(1, TABLE_MAX + 1)
        if top_entry(bits, levels, step) <= TABLE_MAX
    ]
    return [(0, 1), *hybrid]


def calibrate_hluq(
    samples: np.ndarray, bits: int, importance: np.ndarray | None = None, search_offset: bool = True
) -> HluqParams:
    """Return the table shape, scale and offset of least weighted squared error.

    Parameters
    ----------
    samples : numpy.ndarray
        Post-activation values, any shape, float32.
    bits : int
        Code width.
    importance : numpy.ndarray, optional
        ``(C,)`` weight of each channel (last axis) in the error.
    search_offset : bool
        Search the offset between the least sample and 0; otherwise it is the least sample, as published.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    sums = prefix_sums(check_samples(samples, "HLUQ"), importance)
    if sums.high <= sums.low:
        return HluqParams(bits, 0, 1, delta=1.0, offset=sums.low)
    movable = search_offset and sums.low < 0 < sums.high
    parts = (1.0, 0.75, 0.5, 0.25, 0.0) if movable else (1.0,)
    starts = [(part, shape) for part in parts for shape in table_shapes(bits)]
    coarse = sorted(_best_shrink(sums, bits, *start, np.geomspace(1.0, 0.1, 24)) for start in starts)[:8]
    fine = []
    for _, shrink, part, shape in coarse:
        nearby = np.clip(part + np.linspace(-0.125, 0.125, 5), 0, 1) if movable else [part]
        shrinks = shrink * np.geomspace(0.91, 1.1, 15)
        fine += [_best_shrink(sums, bits, float(near), shape, shrinks) for near in nearby]
    _, shrink, part, (levels, step) = min(fine)
    reach = sums.high - part * sums.low
    return HluqParams(bits, levels, step, reach * shrink / top_entry(bits, levels, step), part * sums.low)


def _best_shrink(
    sums: PrefixSums, bits: int, part: float, shape: tuple[int, int], shrinks: np.ndarray
) -> tuple[float, float, float, tuple[int, int]]:
    """Return (error, shrink, part, shape) of the best among `shrinks`.

    The offset is `part` of the least sample; `shrink` scales the distance from the offset to the top level.
    """
    offset = float(np.float32(part * sums.low))
    delta = ((sums.high - offset) * shrinks / top_entry(bits, *shape)).astype(np.float32).astype(np.float64)
    thresholds = offset + delta[:, None] * table_boundaries(bits, *shape)
    levels = offset + delta[:, None] * table_entries(bits, *shape)
    error = sums.squared_error(thresholds, levels)
    best = int(error.argmin())
    return float(error[best]), float(shrinks[best]), part, shape
