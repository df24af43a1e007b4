"""Large parameters that stay in float, as float16 can hold them: a bundle then stores half their bytes."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

SMALLEST = 1 << 14
"""Elements below which a parameter is left as it is."""

_LARGEST = float(np.finfo(np.float16).max)


def round_to_float16(params: Mapping[str, np.ndarray], coded: Container[str]) -> dict[str, np.ndarray]:
    """Parameters with those rounded to float16 precision that are large and not stored as codes.

    Position tables, a patch embedding in float and the float layers of the mask decoder are meant: rounding moves them
    by at most 2**-11 of their value, where quantized activations move by some 2**-5 of theirs.

    Parameters
    ----------
    params : mapping of str to numpy.ndarray
        float32; they are not changed.
    coded : container of str
        Names of those that are stored as codes.

    Returns
    -------
    dict of str to numpy.ndarray
        float32; those that do not change are the same arrays.
    """
    return {
        name: value.astype(np.float16).astype(np.float32) if _rounds(name, value, coded) else value
        for name, value in params.items()
    }


def _rounds(name: str, value: np.ndarray, coded: Container[str]) -> bool:
    large = value.dtype == np.float32 and value.size >= SMALLEST and name not in coded
    return large and float(np.abs(value).max()) <= _LARGEST
