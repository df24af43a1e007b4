"""Scratchpads and tables of the model, and the arithmetic that all operations share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.generated.isa import LIMITS

LOGIT_LIMIT = 1 << (LIMITS["logit_bits"] - 1)
MASKED = -LOGIT_LIMIT
"""The logit of a padding key; real ones saturate one above it."""


@dataclass
class State:
    """Memories on the chip; all 0 at power-up, kept from program to program.

    Attributes
    ----------
    act, wgt, out : numpy.ndarray
        ``(depth, dim)`` uint8 codes.
    vec, acc, lgt : numpy.ndarray
        ``(depth, dim)`` int64 holding int32 (`lgt`: 18-bit) numbers.
    decode : numpy.ndarray
        ``(64,)`` operands, four tables of 16.
    encode : numpy.ndarray
        ``(64,)`` 32 thresholds (the last unused), then 32 codes.
    row_max : numpy.ndarray
        ``(stat_depth,)`` greatest logit of a row.
    """

    config: Config
    act: np.ndarray = field(init=False)
    wgt: np.ndarray = field(init=False)
    out: np.ndarray = field(init=False)
    vec: np.ndarray = field(init=False)
    acc: np.ndarray = field(init=False)
    lgt: np.ndarray = field(init=False)
    decode: np.ndarray = field(init=False)
    encode: np.ndarray = field(init=False)
    row_max: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        for name in ("act", "wgt", "out"):
            setattr(self, name, np.zeros((self.config.depth(name), self.config.dim), np.uint8))
        for name in ("vec", "acc", "lgt"):
            setattr(self, name, np.zeros((self.config.depth(name), self.config.dim), np.int64))
        self.decode, self.encode = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self.row_max = np.zeros(self.config.stat_depth, np.int64)


def signed(value: np.ndarray | int, bits: int) -> np.ndarray:
    """Return the low `bits` of `value` as a signed number."""
    return ((np.asarray(value, np.int64) + (1 << (bits - 1))) & ((1 << bits) - 1)) - (1 << (bits - 1))


def shift_round(value: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """Return ``floor(value / 2**shift + 1/2)``."""
    shift = np.asarray(shift, np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    return (value + half) >> shift


def saturate(value: np.ndarray, bits: int) -> np.ndarray:
    """Return `value` clipped to a signed number of `bits`."""
    return np.clip(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def encode(state: State, value: np.ndarray) -> np.ndarray:
    """Return interval codes by binary search; of ascending thresholds, by the number that the value exceeds."""
    index = np.zeros(value.shape, np.int64)
    for step in (16, 8, 4, 2, 1):
        index += np.where(value > state.encode[index + step - 1], step, 0)
    return state.encode[32 + index].astype(np.uint8)
