"""Weight quantization per output channel: ranges by a fast search or the published exhaustive one.

See docs/quantizers.md#weight-ranges.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.errors import CheckpointError
from tvm_ahcq.quantizers.core.params import check_bits
from tvm_ahcq.quantizers.core.range_rule import MIN_SCALE, range_rule

SYMMETRIC_ZERO_POINT = 128
"""Zero point of every 8-bit weight, so that ``code - zero_point`` fits a signed byte."""

LOSS_POWER = 2.4
"""Exponent of the published loss."""

WORKERS = os.cpu_count() or 1
"""Threads of a range search."""

_SHRINKS = (1.0, 0.92, 0.85, 0.78, 0.72, 0.66, 0.61, 0.56, 0.48, 0.4, 0.3)
_BLOCK = 1 << 17


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight as codes: ``w = scale[o] * (codes[o] - zero_point[o])``.

    Attributes
    ----------
    codes : numpy.ndarray
        uint8, output channels first, shape of the weight.
    scale : numpy.ndarray
        ``(N,)`` float32.
    zero_point : numpy.ndarray
        ``(N,)`` uint8.
    bits : int
        Code width.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    bits: int

    def dequantize(self) -> np.ndarray:
        """Return float32 values, shape of the weight."""
        shape = (-1,) + (1,) * (self.codes.ndim - 1)
        steps = self.codes.astype(np.float32) - self.zero_point.astype(np.float32).reshape(shape)
        return steps * self.scale.reshape(shape)

    def operands(self) -> np.ndarray:
        """Return the integers ``codes - zero_point``, int64, shape of the weight."""
        return self.codes.astype(np.int64) - self.zero_point.reshape((-1,) + (1,) * (self.codes.ndim - 1))

    def folded_bias(self, bias: np.ndarray, offset: float) -> np.ndarray:
        """Return `bias` plus the contribution of a float32 offset common to all inputs, ``(N,)`` float32."""
        row_sums = self.operands().reshape(len(self.codes), -1).sum(1) * self.scale.astype(np.float64)
        return (bias.astype(np.float64) + np.float64(np.float32(offset)) * row_sums).astype(np.float32)


def encode_weight(w: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, bits: int) -> QuantizedWeight:
    """Return round-to-nearest codes for given scales and zero points.

    Parameters
    ----------
    w : numpy.ndarray
        ``(N, ...)`` float32, output channels first.
    scale, zero_point : numpy.ndarray
        ``(N,)``.
    bits : int
        Code width.
    """
    w = np.asarray(w, np.float32)
    scale = np.asarray(scale, np.float32)
    zero_point = np.asarray(zero_point).astype(np.uint8)
    flat, codes = w.reshape(len(w), -1), np.empty((len(w), w[0].size), np.uint8)
    for rows in _blocks(flat):
        steps = np.rint(flat[rows] / scale[rows, None]) + zero_point[rows, None].astype(np.float32)
        codes[rows] = np.clip(steps, 0, np.float32(2**bits - 1))
    return QuantizedWeight(codes.reshape(w.shape), scale, zero_point, bits)


def calibrate_weight(w: np.ndarray, bits: int, method: str = "mse") -> QuantizedWeight:
    """Return round-to-nearest codes on a calibrated range for each output channel; at 8 bits the zero point is 128.

    Parameters
    ----------
    w : numpy.ndarray
        ``(N, ...)`` float32, output channels first; the other axes count as one.
    bits : int
        Code width.
    method : {"mse", "search", "minmax"}
        "minmax": the whole range. "mse": least squared error over a small grid of shrunk ranges and zero points, then
        least-squares scales.
        "search": the published grid, 100 ranges x every zero point, least mean ``|error|**2.4`` (slow).

    Raises
    ------
    CheckpointError
        If the weight is empty or not finite.
    """
    check_bits(bits)
    w = np.asarray(w, np.float32)
    if w.ndim < 1 or w.size == 0 or not np.isfinite(w).all():
        raise CheckpointError(f"A weight of shape {w.shape} is empty, or not finite throughout; check the checkpoint.")
    finders = {"mse": _find_mse, "search": _find_published, "minmax": _find_minmax}
    if method not in finders:
        raise ValueError(f"Weight range method {method!r} is unknown; expected one of {', '.join(finders)}.")
    flat = w.reshape(len(w), -1)
    scale, zero_point = np.empty(len(w), np.float32), np.empty(len(w), np.float32)
    one_sign = 1 if flat.min() >= 0 else -1 if flat.max() <= 0 else 0

    def find(rows: slice) -> None:
        scale[rows], zero_point[rows] = finders[method](flat[rows], bits, one_sign)

    with ThreadPoolExecutor(WORKERS) as pool:  # numpy releases the interpreter's lock; rows do not depend on each other
        list(pool.map(find, _blocks(flat)))
    return encode_weight(w, scale, zero_point, bits)


def _blocks(flat: np.ndarray) -> list[slice]:
    """Return slices of rows that fit the cache."""
    rows = max(1, _BLOCK // flat.shape[1])
    return [slice(at, at + rows) for at in range(0, len(flat), rows)]


class _Trial:
    """Best (scale, zero point) of each row over many trials; buffers are reused."""

    def __init__(self, w: np.ndarray, bits: int, power: float) -> None:
        self.w, self.top, self.power = w, np.float32(2**bits - 1), power
        self.loss = np.full(len(w), np.inf)
        self.scale = np.full(len(w), 2 * MIN_SCALE, np.float32)
        self.zero_point = np.zeros(len(w), np.float32)
        self.steps, self.error = np.empty_like(w), np.empty_like(w)

    def round(self, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
        """Return ``code - zero_point`` as float32, in a shared buffer."""
        steps = self.steps
        np.multiply(self.w, (np.float32(1) / scale)[:, None], out=steps)
        np.rint(steps, out=steps)
        np.maximum(steps, -zero_point[:, None], out=steps)
        return np.minimum(steps, (self.top - zero_point)[:, None], out=steps)

    def attempt(self, scale: np.ndarray, zero_point: np.ndarray) -> None:
        """Try one candidate for each row; the first of equals stays."""
        steps, error = self.round(scale, zero_point), self.error
        np.multiply(steps, scale[:, None], out=error)
        np.subtract(error, self.w, out=error)
        if self.power == 2.0:
            loss = np.einsum("nk,nk->n", error, error).astype(np.float64)
        else:
            loss = np.mean(np.abs(error) ** np.float32(self.power), 1, dtype=np.float64)
        better = (loss < self.loss) & (scale >= MIN_SCALE)
        self.loss = np.where(better, loss, self.loss)
        self.scale = np.where(better, scale, self.scale)
        self.zero_point = np.where(better, zero_point, self.zero_point)

    def least_squares(self) -> None:
        """Try the least-squares scale of the best codes so far."""
        steps = self.round(self.scale, self.zero_point)
        energy = np.einsum("nk,nk->n", steps, steps)
        fitted = np.einsum("nk,nk->n", steps, self.w) / np.where(energy > 0, energy, 1)
        self.attempt(np.where(fitted > MIN_SCALE, fitted, self.scale).astype(np.float32), self.zero_point)


def _find_minmax(w: np.ndarray, bits: int, _one_sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the full range of each row, 0 included."""
    low, high = w.min(1), w.max(1)
    if bits == 8:
        scale = np.maximum(np.maximum(high / 127, -low / 128), MIN_SCALE).astype(np.float32)
        return scale, np.full_like(scale, SYMMETRIC_ZERO_POINT)
    scale, zero_point = range_rule(low, high, bits)
    return scale, zero_point.astype(np.float32)


def _find_mse(w: np.ndarray, bits: int, one_sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Try shrunk ranges around the natural zero point, then three least-squares fits of the scale."""
    trial = _Trial(w, bits, 2.0)
    scale, natural = _find_minmax(w, bits, one_sign)
    for shrink in _SHRINKS:
        trial.attempt(scale * np.float32(shrink), natural)
    middle, moves = trial.scale, (0,) if bits == 8 or one_sign else (0, -1, 1, -2, 2)
    for shrink in (0.94, 0.97, 1.0, 1.03, 1.06):
        for move in moves:
            trial.attempt(middle * np.float32(shrink), np.clip(natural + move, 0, trial.top))
    for _ in range(3):
        trial.least_squares()
    return trial.scale, trial.zero_point


def _find_published(w: np.ndarray, bits: int, one_sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Try every shrink i/100 with every zero point; a one-signed tensor keeps 0 at an end of its range."""
    trial = _Trial(w, bits, LOSS_POWER)
    low, high = np.minimum(w.min(1), 0), np.maximum(w.max(1), 0)
    top = 2**bits - 1
    zero_points: tuple[int, ...]
    if bits == 8:
        zero_points = (SYMMETRIC_ZERO_POINT,)
        high = np.maximum(high, -low)
        low = -high
    elif one_sign:
        zero_points = (0,) if one_sign > 0 else (top,)
    else:
        zero_points = tuple(range(top + 1))
    if bits != 8:
        trial.attempt(*(a.astype(np.float32) for a in range_rule(low, high, bits)))
    for i in range(1, 101):
        reach = (high - low) * np.float32(i / 100)
        for zero_point in zero_points:
            lower = -np.float32(zero_point) * (reach / np.float32(top))
            scale, rounded = range_rule(lower, reach + lower, bits)
            trial.attempt(scale, rounded.astype(np.float32))
    return trial.scale, trial.zero_point
