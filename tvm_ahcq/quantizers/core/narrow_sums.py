"""Proofs that products of operands and weights add up within 16 bits.

Kernels that multiply bytes add products of channels ``4 k`` and ``4 k + 1``, and of ``4 k + 2`` and ``4 k + 3``, to one
16-bit sum each, for several quadruples of channels in a row, before the sum moves to 32 bits. A step is one quadruple.
Operands lie between 0 and a greatest one. So the positive weights alone bound a sum from above, the negative ones from
below, whatever the operands are; and they bound every sum of fewer products too.
"""

from __future__ import annotations

import numpy as np

INT16_MAX = 2**15 - 1
"""Bound of the absolute value of a sum."""

_ENOUGH = 64
"""Steps after which moving the sums to 32 bits costs little: more are worth a kernel of its own only if all fit."""


def steps_by_width(weight_max: int, operand_max: int, products: int = 2) -> int:
    """Return the steps that fit for any weights up to `weight_max` in size.

    Parameters
    ----------
    weight_max : int
        Bound of ``abs(code - zero_point)``.
    operand_max : int
        Greatest operand, 1 to 255.
    products : int
        Products that a step adds to a sum.

    Returns
    -------
    int
        0 if a single step does not fit.
    """
    return INT16_MAX // (products * operand_max * weight_max)


def exact_steps(weight: np.ndarray, operand_max: int) -> int:
    """Return steps that fit for these very weights: all of them, or else a power of two up to 64.

    Few different numbers let layers of one shape share a kernel.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, Kp)`` int8, ``code - zero_point``, channels in the order of the kernel; Kp is a multiple of 4.
    operand_max : int
        Greatest operand, 1 to 255.

    Returns
    -------
    int
        0 if a single step does not fit.
    """
    sums = _one_sided_sums(weight)
    quadruples = weight.shape[1] // 4
    powers = [2**i for i in reversed(range(_ENOUGH.bit_length())) if 2**i < quadruples]
    steps = next((n for n in (quadruples, *powers) if _largest(sums, n) * operand_max <= INT16_MAX), 0)
    _check(sums, operand_max, steps)
    return steps


def check_steps(weight: np.ndarray, operand_max: int, steps: int) -> None:
    """Refuse a number of steps that is not proven.

    Parameters
    ----------
    weight, operand_max
        As in :func:`exact_steps`.
    steps : int
        Quadruples of channels.

    Raises
    ------
    ValueError
        Some operands up to `operand_max` give a sum of `steps` steps that does not fit.
    """
    _check(_one_sided_sums(weight), operand_max, min(steps, weight.shape[1] // 4))


def _check(sums: list[np.ndarray], operand_max: int, steps: int) -> None:
    if (reached := _largest(sums, steps) * operand_max) > INT16_MAX:
        raise ValueError(f"{steps} steps with operands up to {operand_max} reach {reached}, more than {INT16_MAX}")


def _one_sided_sums(weight: np.ndarray) -> list[np.ndarray]:
    """Sums of the positive, then of the negated negative weights, up to each step: ``(N, Kp / 4 + 1, 2)`` int32."""
    rows, channels = weight.shape
    pairs = weight.astype(np.int32).reshape(rows, channels // 4, 2, 2)
    both = []
    for signed in (pairs, -pairs):
        sums = np.zeros((rows, channels // 4 + 1, 2), np.int32)
        np.cumsum(np.maximum(signed, 0).sum(axis=3), axis=1, out=sums[:, 1:])
        both.append(sums)
    return both


def _largest(one_sided: list[np.ndarray], steps: int) -> int:
    """Largest one-sided sum over `steps` successive steps."""
    return max(int((sums[:, steps:] - sums[:, : sums.shape[1] - steps]).max(initial=0)) for sums in one_sided)
