"""A call of a kernel, what it should have given, and the comparison of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

EXACT = "every bit"
"""Rule of kernels whose results are defined bit for bit."""


@dataclass(frozen=True, eq=False)
class KernelCall:
    """Arguments and result of one call.

    Attributes
    ----------
    symbol : str
        Name of the kernel in the library.
    inputs : tuple of numpy.ndarray
        Copied before the call, in the order that the kernel's docstring in :mod:`tvm_ahcq.kernels` gives.
    output : numpy.ndarray
        Copied after the call.
    """

    symbol: str
    inputs: tuple[np.ndarray, ...]
    output: np.ndarray


@dataclass(frozen=True, eq=False)
class Expected:
    """What some elements of an output must be.

    Attributes
    ----------
    at : tuple of numpy.ndarray
        Their places: one array of indices for each axis of the output; they broadcast.
    least : numpy.ndarray
        Least values that are right; the only ones where `most` is None.
    most : numpy.ndarray or None
        Greatest values that are right.
    """

    at: tuple[np.ndarray, ...]
    least: np.ndarray
    most: np.ndarray | None = None


@dataclass(frozen=True)
class KernelReference:
    """How the result of a kind of kernels is known.

    Attributes
    ----------
    compute : callable
        ``compute(call, options) -> expected``; `options` is the description of the kernel in the manifest.
    rule : str
        ``EXACT``, or the tolerance for people.
    """

    compute: Callable[[KernelCall, Mapping[str, Any]], Expected]
    rule: str = EXACT


@dataclass(frozen=True)
class Difference:
    """Elements of one call that are not what they should be.

    Attributes
    ----------
    symbol : str
        Name of the kernel.
    shape : tuple of int
        Of its output.
    count, compared : int
        Elements that differ, and those that were compared.
    place : tuple of int
        Index of the first one.
    found, expected : str
        Its value, and the one that is right or the range of those that are.
    """

    symbol: str
    shape: tuple[int, ...]
    count: int
    compared: int
    place: tuple[int, ...]
    found: str
    expected: str

    def __str__(self) -> str:
        sizes = " x ".join(map(str, self.shape))
        return (
            f"{self.symbol} ({sizes}): {self.count} of {self.compared} elements differ, first at "
            f"{list(self.place)}: {self.found}, expected {self.expected}"
        )


def compare_call(call: KernelCall, expected: Expected) -> tuple[int, Difference | None]:
    """Compare a call with what it should have given.

    Returns
    -------
    int
        Elements that were compared.
    Difference or None
        What differs, if anything does.

    Raises
    ------
    ValueError, IndexError
        `expected` does not fit the output.
    """
    found, least, most = call.output[expected.at], expected.least, expected.most
    if found.shape != least.shape or (most is None and found.dtype != least.dtype):
        raise ValueError(
            f"output {call.output.dtype}{call.output.shape} has {found.dtype}{found.shape} where the reference has "
            f"{least.dtype}{least.shape}"
        )
    if most is None:
        wrong = _bits(found) != _bits(least)
    else:
        wrong = ~((found >= least) & (found <= most))  # NaN is wrong
    count = int(np.count_nonzero(wrong))
    if count == 0:
        return found.size, None
    first = np.unravel_index(int(np.argmax(wrong)), found.shape)
    place = tuple(int(np.broadcast_to(axis, found.shape)[first]) for axis in expected.at)
    wanted = str(least[first]) if most is None else f"{least[first]} to {most[first]}"
    difference = Difference(call.symbol, call.output.shape, count, found.size, place, str(found[first]), wanted)
    return found.size, difference


def grid(*axes: np.ndarray | int) -> tuple[np.ndarray, ...]:
    """Places of a rectangular choice of elements: for each axis its indices, or their number to take them all."""
    return tuple(np.ix_(*(np.arange(axis) if isinstance(axis, int) else axis for axis in axes)))


def some(count: int, most: int, seed: int = 0) -> np.ndarray:
    """Ascending numbers below `count`: all if there are at most `most`, else the first, the last, and a seeded choice.

    Parameters
    ----------
    count : int
        Numbers to choose from.
    most : int
        Numbers to choose; 8 at least.
    seed : int
        Of the choice.
    """
    most = max(most, 8)
    if count <= most:
        return np.arange(count)
    edge = min(_EDGE, most // 4)
    chosen = np.random.default_rng(seed).choice(count - 2 * edge, most - 2 * edge, replace=False)
    return np.concatenate([np.arange(edge), edge + np.sort(chosen), np.arange(count - edge, count)])


_EDGE = 16
"""First and last rows that a choice always has: vectors and tiles begin and end there."""


def _bits(array: np.ndarray) -> np.ndarray:
    """The same as unsigned integers, so that signs of zeros and NaN count."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")
