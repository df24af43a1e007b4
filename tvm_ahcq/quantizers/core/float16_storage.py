"""Rounding of large float parameters to float16 precision, so that a bundle stores half their bytes."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

MIN_SIZE = 1 << 14
"""Smaller parameters (in elements) are not rounded."""

_LARGEST = float(np.finfo(np.float16).max)


def round_to_float16(params: Mapping[str, np.ndarray], coded: Container[str]) -> dict[str, np.ndarray]:
    """Return parameters with the large ones that are not stored as codes rounded to float16 precision.

    These are position tables and layers that stay in float: rounding changes them by at most 2**-11 of their value,
    quantization changes activations by some 2**-5.

    Parameters
    ----------
    params : mapping of str to numpy.ndarray
        float32; not modified.
    coded : container of str
        Names of the parameters that are stored as codes.

    Returns
    -------
    dict of str to numpy.ndarray
        float32; unchanged parameters are the same arrays.
    """
    return {
        name: value.astype(np.float16).astype(np.float32) if _is_rounded(name, value, coded) else value
        for name, value in params.items()
    }


def _is_rounded(name: str, value: np.ndarray, coded: Container[str]) -> bool:
    """True if a parameter is large float32, not stored as codes, and within float16's range."""
    large = value.dtype == np.float32 and value.size >= MIN_SIZE and name not in coded
    return large and float(np.abs(value).max()) <= _LARGEST
