"""The codebook, the common form of all quantizers: thresholds, a small integer table, a scale and an offset.

See docs/quantizers.md#codebooks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Codebook:
    """A monotone staircase: ``code = number of thresholds that x exceeds``, ``value = scale * table[code] + offset``.

    A threshold belongs to the lower code (``x > t`` must hold to exceed it), so a formula's tie rule is expressed by
    where exactly the float32 threshold lies: on the tie, or on the float32 just below it.

    Attributes
    ----------
    thresholds : numpy.ndarray
        ``(n - 1,)`` float32, ascending; between equal neighbours lies a code that no number has, behind an infinite one
        a code that no float32 reaches.
    table : numpy.ndarray
        ``(n,)`` int32, ascending; entry 0 has the value `offset`.
    scale, offset : float
        Of the values; float32-representable.
    """

    thresholds: np.ndarray
    table: np.ndarray
    scale: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        thresholds = np.array(self.thresholds, np.float32)
        table = np.array(self.table, np.int32)
        if thresholds.ndim != 1 or table.shape != (thresholds.size + 1,):
            raise ValueError(f"{thresholds.shape} thresholds and {table.shape} table entries; expected n - 1 and n.")
        if np.isnan(thresholds).any() or (thresholds[1:] < thresholds[:-1]).any() or (np.diff(table) < 0).any():
            raise ValueError("A codebook's thresholds and table must be in ascending order.")
        if table[-1] - table[0] > 255:
            raise ValueError(f"The table spans {table[-1] - table[0]}; an unsigned 8-bit operand holds at most 255.")
        thresholds.flags.writeable = table.flags.writeable = False
        object.__setattr__(self, "thresholds", thresholds)
        object.__setattr__(self, "table", table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codebook):
            return NotImplemented
        same_arrays = np.array_equal(self.thresholds, other.thresholds) and np.array_equal(self.table, other.table)
        return same_arrays and (self.scale, self.offset) == (other.scale, other.offset)

    __hash__ = None  # type: ignore[assignment]

    @property
    def zero_point(self) -> int:
        """Operand of the value `offset`: operands are ``table + zero_point``, from 0."""
        return -int(self.table[0])

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return uint8 codes of `x` (float32, or float64 compared exactly), same shape."""
        x = np.asarray(x)
        thresholds = self.thresholds if x.dtype == np.float32 else self.thresholds.astype(np.float64)
        return np.searchsorted(thresholds, x, side="left").astype(np.uint8)

    def operands(self, codes: np.ndarray) -> np.ndarray:
        """Return uint8 operands of `codes`: the code itself for affine quantizers, the table entry otherwise."""
        return (self.table + self.zero_point).astype(np.uint8)[codes]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return float32 values of `codes`."""
        values = np.float32(self.scale) * self.table.astype(np.float32) + np.float32(self.offset)
        return values[codes]

    def fake_quant(self, x: np.ndarray) -> np.ndarray:
        """Return `x` rounded to the codebook's values, float32."""
        return self.decode(self.encode(x))


def float32_at_most(x: np.ndarray) -> np.ndarray:
    """Return the largest float32 not above each float64 `x`: for float32 v, ``v > x`` if and only if ``v > result``."""
    rounded = np.asarray(x, np.float64).astype(np.float32)
    return np.where(rounded.astype(np.float64) > x, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def float32_below(x: np.ndarray) -> np.ndarray:
    """Return the largest float32 below each float64 `x`: for float32 v, ``v >= x`` if and only if ``v > result``."""
    rounded = np.asarray(x, np.float64).astype(np.float32)
    return np.where(rounded.astype(np.float64) >= x, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def build_codebook(
    encode: Callable[[np.ndarray], np.ndarray], table: np.ndarray, scale: float, offset: float = 0.0
) -> Codebook:
    """Return the codebook with exactly the codes of a monotone `encode`, on every finite float32.

    Parameters
    ----------
    encode : callable
        float32 array -> integer codes from 0 to ``len(table) - 1``, never falling as its argument rises.
    table, scale, offset
        As in :class:`Codebook`.
    """
    codes = np.arange(1, len(table))
    limit = np.finfo(np.float32).max
    thresholds = last_float32(lambda x: encode(x) < codes, -limit, limit, codes.size)
    return Codebook(thresholds, table, scale, offset)


def last_float32(holds: Callable[[np.ndarray], np.ndarray], low: float, high: float, count: int) -> np.ndarray:
    """Return the largest float32 in [low, high] at which each of `count` predicates holds, by bisection.

    Parameters
    ----------
    holds : callable
        ``(count,)`` float32 points, one for each predicate -> ``(count,)`` bool; true up to a point, false after it.
    low, high : float
        Finite, float32-representable.
    count : int
        Number of predicates.

    Returns
    -------
    numpy.ndarray
        ``(count,)`` float32; -inf where the predicate does not even hold at `low`, `high` -> +inf where it never ends.
    """
    first, last = (int(_ordered(np.array([end], np.float32))[0]) for end in (low, high))
    inside = np.full(count, first - 1, np.int64)
    outside = np.full(count, last + 1, np.int64)
    while (outside - inside > 1).any():
        middle = (inside + outside) >> 1
        with np.errstate(over="ignore"):
            true_at_middle = holds(_from_ordered(np.clip(middle, first, last)))
        searching = outside - inside > 1
        inside = np.where(searching & true_at_middle, middle, inside)
        outside = np.where(searching & ~true_at_middle, middle, outside)
    points = _from_ordered(np.clip(inside, first, last))
    points = np.where(inside < first, np.float32(-np.inf), points)
    return np.where(inside == last, np.float32(np.inf), points)


def _ordered(x: np.ndarray) -> np.ndarray:
    """Return int64 ranks of float32 numbers, ascending and dense (-0 and 0 share rank 0)."""
    raw = np.asarray(x, np.float32).view(np.int32).astype(np.int64)
    return np.where(raw >= 0, raw, -(raw & 0x7FFFFFFF))


def _from_ordered(rank: np.ndarray) -> np.ndarray:
    """Return the float32 numbers of ranks; inverse of :func:`_ordered`."""
    rank = np.asarray(rank, np.int64)
    raw = np.where(rank >= 0, rank, (-rank) | 0x80000000)
    return raw.astype(np.uint32).view(np.float32)
