"""A linear layer for the accelerator: codes, weights, groups, and the destination of its sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.codegen.isa.generated.isa import LIMITS
from tvm_ahcq.codegen.isa.layout import fixed_scale

_MANTISSA = LIMITS["mantissa_bits"]

WORD_BITS = 32

HALF_BITS = 4
"""Bits of a code or a weight that the accelerator takes at a time: 8 bits are two halves, high and low."""


def scale_parts(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mantissas and shifts of scales in the format of ``vec``, int64."""
    shift, mantissa = words.astype(np.int64) >> _MANTISSA & 63, words.astype(np.int64) & ((1 << _MANTISSA) - 1)
    return mantissa - ((mantissa >> (_MANTISSA - 1)) << _MANTISSA), shift


def scale_value(words: np.ndarray) -> np.ndarray:
    """Return the values of scales in the format of ``vec``, exact in float64."""
    mantissa, shift = scale_parts(words)
    return mantissa / 2.0**shift


@dataclass(frozen=True, eq=False)
class Encoder:
    """From accumulators to codes.

    Attributes
    ----------
    multiplier, bias : numpy.ndarray
        ``(G, N)`` and ``(N,)`` real numbers.
    fraction_bits : int
        Of the scaled sums.
    thresholds, codes : numpy.ndarray
        Intervals of the sums in units of ``2**-fraction_bits``, and the code of each.
    """

    multiplier: np.ndarray
    bias: np.ndarray
    fraction_bits: int
    thresholds: np.ndarray
    codes: np.ndarray

    def scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Return multipliers in two parts, ``(G, N)`` words of ``vec`` each: rounded to a mantissa, and the rest.

        The host's multipliers have 24 bits, a mantissa 21. With both parts, codes differ from the host's only where a
        sum lies within float32's own rounding of a threshold; with one, four times as often.
        """
        high = fixed_scale(self.multiplier, self.fraction_bits)
        rest = self.multiplier - scale_value(high) * 2.0**-self.fraction_bits
        return high, fixed_scale(rest, self.fraction_bits)


@dataclass(frozen=True)
class SumField:
    """Bits of a word that hold the sums of a channel group, sign included."""

    word: int
    offset: int
    bits: int


def pack_fields(largest: Sequence[int], halves: int = 1) -> tuple[SumField, ...]:
    """Assign the sums of channel groups to fields, as many in a word as fit, in order.

    A word is the sum of the group sums in it, each shifted to its offset, which the vector unit makes exactly: half the
    words of one group each are half the traffic, and the array need not wait for the stores.

    Parameters
    ----------
    largest : sequence of int
        Bounds of the absolute value of each group's sums.
    halves : int
        Of a weight: sums of the high one are shifted that much further.
    """
    most = _MANTISSA - 2 - HALF_BITS * (halves - 1)
    fields: list[SumField] = []
    word, offset = 0, 0
    for bound in largest:
        bits = int(bound).bit_length() + 1  # up to 2**(bits - 1) - 1 in absolute value: fields never add up to more
        # the scale that shifts a sum has a mantissa of 22 bits, with its sign
        if offset and (offset + bits > WORD_BITS or offset > most):
            word, offset = word + 1, 0
        fields.append(SumField(word, offset, bits))
        offset += bits
    return tuple(fields)


@dataclass(frozen=True, eq=False)
class LinearStage:
    """A layer whose operands are 4-bit codes, or halves of wider ones.

    Attributes
    ----------
    rows : int
        A multiple of 8.
    weight, zero : numpy.ndarray
        ``(N, K)`` and ``(N,)`` uint8 codes and zero points; N a multiple of Dim. Of weights in two halves, ``(N, 2 K)``
        and ``(2 N,)``, the high halves first.
    group_sizes : tuple of int
        Channels of each group, multiples of Dim; they sum to K.
    tables : numpy.ndarray
        ``(G, 16)`` operands of each group's codes; of codes in two halves ``(2, 16)``, those of each half.
    fields : tuple of SumField
        Destination of the accumulators of each group, if they are the result.
    encoder : Encoder or None
        Encoder of the result; None if the accumulators are the result.
    code_halves, weight_halves : int
        1 or 2. The codes of two halves are ``(rows, 2 K)``, the high ones first.
    """

    rows: int
    weight: np.ndarray
    zero: np.ndarray
    group_sizes: tuple[int, ...]
    tables: np.ndarray
    fields: tuple[SumField, ...]
    encoder: Encoder | None = None
    code_halves: int = 1
    weight_halves: int = 1

    @property
    def outputs(self) -> int:
        """Number of outputs, N."""
        return self.weight.shape[0]

    @property
    def sums(self) -> int:
        """Number of accumulators of an output: one for each group and half of its weights."""
        return len(self.group_sizes) * self.weight_halves

    @property
    def parts(self) -> list[list[int]]:
        """Groups whose accumulators are in the array at a time: those of a word, or one if they are scaled."""
        if self.encoder is not None:
            return [[group] for group in range(len(self.group_sizes))]
        words = self.fields[-1].word + 1
        return [[g for g, field in enumerate(self.fields) if field.word == word] for word in range(words)]

    def result_bytes(self) -> int:
        """Return the bytes of the result: codes ``(N / Dim, rows, Dim)``, or int32 ``(words, N / Dim, rows, Dim)``."""
        size = self.rows * self.outputs
        return size // 2 if self.encoder is not None else 4 * len(self.parts) * size
