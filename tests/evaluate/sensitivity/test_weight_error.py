"""Condition numbers and errors of weights against numpy's own."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.evaluate.sensitivity.weight_error import condition, weight_error
from tvm_ahcq.quantizers.weight.weights import calibrate_weight

WEIGHT = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)


def with_condition(number: float) -> np.ndarray:
    u, _, vt = np.linalg.svd(WEIGHT.astype(np.float64), full_matrices=False)
    return (u * np.geomspace(number, 1, 16)) @ vt


@pytest.mark.parametrize("number", [1.0, 30.0, 1e5])
def test_the_condition_number_of_a_constructed_matrix_is_found(number):
    assert condition(with_condition(number).astype(np.float32)) == pytest.approx(number, rel=1e-2)
    assert condition(with_condition(number)) == pytest.approx(number, rel=1e-9)


def test_a_pointwise_convolution_is_a_matrix_and_a_wider_one_is_none():
    assert condition(WEIGHT[:, :, None, None]) == pytest.approx(np.linalg.cond(WEIGHT.astype(np.float64)))
    assert condition(np.zeros((4, 4, 3, 3), np.float32)) is None


@pytest.mark.parametrize("columns", [[3], [0, 15], list(range(16))])
def test_zero_columns_make_a_weight_rank_deficient(columns):
    weight = WEIGHT.copy()
    weight[:, columns] = 0
    assert condition(weight) == float("inf")


def test_the_error_is_that_of_the_values_that_codes_stand_for():
    changed = WEIGHT * np.float32(0.9)
    quantized = calibrate_weight(changed, 4)
    error = weight_error("block.lin.weight", WEIGHT, changed, quantized)
    noise = np.square(quantized.dequantize().astype(np.float64) - WEIGHT).sum()
    assert error.sqnr == pytest.approx(10 * np.log10(np.square(WEIGHT, dtype=np.float64).sum() / noise))
    assert (error.layer, error.bits, error.shape) == ("block.lin", 4, (24, 16))
    expected = [np.linalg.cond(w.astype(np.float64)) for w in (WEIGHT, changed, quantized.dequantize())]
    got = [error.condition_before, error.condition_after, error.condition_codes]
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_a_rounded_weight_is_represented_exactly():
    rounded = calibrate_weight(WEIGHT, 4).dequantize()
    again = calibrate_weight(rounded, 4)
    exact = weight_error(
        "lin.weight",
        rounded,
        rounded,
        type(again)(
            calibrate_weight(WEIGHT, 4).codes,
            *(getattr(calibrate_weight(WEIGHT, 4), f) for f in ("scale", "zero_point")),
            4,
        ),
    )
    assert exact.sqnr == float("inf") and exact.condition_before == exact.condition_codes
