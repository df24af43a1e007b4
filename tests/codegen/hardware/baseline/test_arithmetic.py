"""The floating-point units against numpy, bit by bit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.baseline import model

HERE = Path(__file__).resolve().parent
STAGES = (5, 5, 5, 2, 8)
CORNERS = np.array(
    [
        0x00000000,
        0x00000001,
        0x007FFFFF,
        0x00800000,
        0x00800001,
        0x01000000,
        0x33800000,
        0x34000000,
        0x3F7FFFFF,
        0x3F800000,
        0x3F800001,
        0x3FFFFFFF,
        0x40000000,
        0x4B000000,
        0x4B7FFFFF,
        0x4B800000,
        0x1F800000,
        0x5F800000,
        0x20000000,
        0x7E800000,
        0x7F7FFFFF,
        0x7F800000,
        0x7F800001,
        0x7FC00000,
        0x7FFFFFFF,
    ],
    np.uint32,
)
"""Zero, subnormal and smallest normal numbers, ends of binades, ties, largest numbers, infinity, NaNs."""


def pairs() -> np.ndarray:
    rng = np.random.default_rng(0)
    words = np.concatenate([CORNERS, CORNERS | 0x80000000])
    corners = np.stack(np.meshgrid(words, words), -1).reshape(-1, 2)
    anything = rng.integers(0, 2**32, (20_000, 2), dtype=np.uint32)
    # near one another: cancellation, ties; fractions of few bits make ties common
    near = rng.integers(0, 2**32, (20_000, 2), dtype=np.uint32)
    exponents = rng.integers(100, 150, (20_000, 1)) + rng.integers(-28, 29, (20_000, 2))
    near = (near & 0x807FFFFF) | (exponents.astype(np.uint32) << 23)
    few = near.copy()
    few &= np.array([0xFFFFF000, 0xFFFFFFFF], np.uint32)
    tiny = (near & 0x807FFFFF) | (rng.integers(0, 30, (20_000, 2)).astype(np.uint32) << 23)
    # products around the smallest normal number
    low = (near & 0x807FFFFF) | ((rng.integers(62, 66, (20_000, 2))).astype(np.uint32) << 23)
    return np.concatenate([corners, anything, near, few, few & 0xFFFFF800, tiny, low])


@pytest.fixture(scope="module")
def results(build: Callable[..., Path]) -> np.ndarray:
    program = build("fp_units", HERE / "fp_units.cc", (HERE / "fp_units.sv",))
    fed = np.concatenate([pairs(), np.zeros((max(STAGES), 2), np.uint32)])
    out = subprocess.run([str(program)], input=fed.tobytes(), capture_output=True, check=True).stdout
    return np.frombuffer(out, np.uint32).reshape(-1, 5)


def of_unit(results: np.ndarray, unit: int) -> np.ndarray:
    first = STAGES[unit] - 1
    return results[first : first + len(pairs()), unit]


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_products_are_those_of_numpy_rounded_to_even_and_flushed(results: np.ndarray, unit: int) -> None:
    a, b = pairs().T
    np.testing.assert_array_equal(of_unit(results, unit), model.multiply(a, b))


def test_products_of_bf16_are_exact(results: np.ndarray) -> None:
    a, b = pairs().T & np.uint32(0xFFFF0000)
    np.testing.assert_array_equal(of_unit(results, 3), model.multiply(a, b))


def test_sums_are_those_of_numpy_rounded_to_even_and_flushed(results: np.ndarray) -> None:
    a, b = pairs().T
    np.testing.assert_array_equal(of_unit(results, 4), model.add(a, b))


def test_the_model_is_numpys_arithmetic_where_nothing_is_subnormal() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=5000).astype(np.float32) for _ in range(2))
    np.testing.assert_array_equal(model.multiply(a.view(np.uint32), b.view(np.uint32)).view(np.float32), a * b)
    np.testing.assert_array_equal(model.add(a.view(np.uint32), b.view(np.uint32)).view(np.float32), a + b)


def test_the_model_flushes_and_has_one_nan() -> None:
    words = np.array([0x00000001, 0x80400000, 0x7F800001, 0xFFC00001], np.uint32)
    one = np.full(4, 0x3F800000, np.uint32)
    np.testing.assert_array_equal(model.multiply(words, one), [0, 0x80000000, 0x7FC00000, 0x7FC00000])
    # 2^-63 * 2^-64 is half of the smallest normal number
    low = model.multiply(np.array([0x20000000], np.uint32), np.array([0x9F800000], np.uint32))
    np.testing.assert_array_equal(low, [0x80000000])
