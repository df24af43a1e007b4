"""Model of the floating-point core: its arithmetic, and its cycles.

Numbers are rounded to nearest, ties to even; subnormal numbers count as zero and are written as zero of their sign;
every NaN is 0x7fc00000. Sums go up with the step: ``sum = add(multiply(x[m, k], w[k, n]), sum)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvm_ahcq.errors import DeviceError

Words = NDArray[np.uint32]
MAX_ROWS = 512
"""Rows of a tile: words of a block RAM."""
MAX_STEPS = 2**14 - 1
CHUNK_BYTES = 8
_NAN = np.uint32(0x7FC00000)
_ADD_STAGES = 8
_MULTIPLY_STAGES = {"fp32": 5, "bf16": 2}


@dataclass(frozen=True)
class Core:
    """Sizes of a floating-point core.

    Attributes
    ----------
    format : str
        Of operands and weights: ``fp32``, or ``bf16``, whose products are exact. Sums are fp32.
    lanes : int
        Multiply-adds a cycle; columns of a tile.
    dsps : int
        DSP blocks that a product takes (fp32: 2, 3 or 4).
    """

    format: str
    lanes: int
    dsps: int = 4

    def __post_init__(self) -> None:
        if self.format not in _MULTIPLY_STAGES:
            raise DeviceError(f"No floating-point core of {self.format!r}; there are {', '.join(_MULTIPLY_STAGES)}.")
        if not 2 <= self.lanes <= 256 or not 2 <= self.dsps <= 4:
            raise DeviceError(f"{self}: a core has 2 .. 256 lanes of 2 .. 4 DSP blocks.")

    @property
    def name(self) -> str:
        """Name of the core."""
        return f"{self.format}_x{self.lanes}"

    @property
    def word_bytes(self) -> int:
        """Bytes of an operand or a weight."""
        return 4 if self.format == "fp32" else 2

    def parameters(self) -> dict[str, int]:
        """Return the parameters of the RTL."""
        return {"Bf16": int(self.format == "bf16"), "Lanes": self.lanes, "Dsps": self.dsps}


def _flush(words: Words) -> Words:
    """Subnormal numbers to zero."""
    return np.where(words & np.uint32(0x7F800000), words, words & np.uint32(0x80000000)).astype(np.uint32)


def _finish(words: Words, nan: NDArray[np.bool_]) -> Words:
    return np.where(nan, _NAN, _flush(words)).astype(np.uint32)


def multiply(a: Words, b: Words) -> Words:
    """Products of fp32 words; of bf16 words too, in the upper halves.

    The product of two 24-bit fractions is exact in float64; it is rounded as if exponents had no end, then flushed.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        x, y = (_flush(np.asarray(words, np.uint32)).view(np.float32).astype(np.float64) for words in (a, b))
        exact = x * y
        fraction, exponent = np.frexp(exact)
        rounded = np.ldexp(fraction.astype(np.float32).astype(np.float64), exponent)
        result = np.where(np.abs(rounded) < 2.0**-126, np.copysign(0.0, exact), rounded).astype(np.float32)
    return _finish(result.view(np.uint32), np.isnan(exact))


def add(a: Words, b: Words) -> Words:
    """Sums of fp32 words. Sums below the smallest normal number are exact, so numpy's own sum, flushed, is the one."""
    x, y = (_flush(np.asarray(words, np.uint32)).view(np.float32) for words in (a, b))
    with np.errstate(invalid="ignore", over="ignore"):
        result = x + y
    return _finish(result.view(np.uint32), np.isnan(result))


def gemm(operands: Words, weights: Words) -> Words:
    """Result of a tile.

    Parameters
    ----------
    operands : ndarray of uint32, shape (rows, steps)
        fp32 words, or bf16 words in upper halves.
    weights : ndarray of uint32, shape (steps, lanes)

    Returns
    -------
    ndarray of uint32, shape (rows, lanes)
        fp32 words.
    """
    sums = np.zeros((operands.shape[0], weights.shape[1]), np.uint32)
    for step in range(operands.shape[1]):
        sums = add(multiply(operands[:, step, None], weights[None, step]), sums)
    return sums


def step_cycles(core: Core, rows: int) -> int:
    """Cycles from one step to the next: the rows, or the next weights, or an addition, whichever takes longest."""
    return max(rows, core.lanes + 1, _ADD_STAGES + 3)


def cycles(core: Core, tiles: list[tuple[int, int]]) -> int:
    """Cycles of tiles, one after the other, from the first chunk in to the last result out; memory keeps up.

    Parameters
    ----------
    core : Core
    tiles : list of tuple of int
        Rows and steps of each.
    """
    latency = _MULTIPLY_STAGES[core.format] + _ADD_STAGES
    # the first weights: a chunk in the buffer is a word three cycles later
    start = core.lanes + 4
    fetched = 0
    for rows, steps in tiles:
        period = step_cycles(core, rows)
        # results of the tile before must be gone before the last step writes new ones
        last = max(start + period * (steps - 1), fetched)
        end = last + rows - 1
        fetched = end + latency + 3 + rows * core.lanes
        start = max(end + 1, last + period)
    return fetched + core.lanes + 1


def gemm_tiles(core: Core, rows: int, depth: int, columns: int) -> list[tuple[int, int]]:
    """Tiles of a GEMM: equal parts of the rows, as few as there can be, for each column block.

    Raises
    ------
    DeviceError
        If the sums are too long for the counter of steps.
    """
    if depth > MAX_STEPS:
        raise DeviceError(f"A sum of {depth} products; the core takes {MAX_STEPS}.")
    parts = -(-rows // MAX_ROWS)
    blocks = -(-columns // core.lanes)
    sizes = [rows // parts + (part < rows % parts) for part in range(parts)]
    return [(size, depth) for size in sizes for _ in range(blocks)]
