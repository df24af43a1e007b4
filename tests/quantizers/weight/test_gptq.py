"""Error-compensated rounding: never worse than nearest, brute force on tiny cases, degenerate inputs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ahcq.errors import CalibrationError, CheckpointError
from tvm_ahcq.quantizers.weight.gptq import FactoredHessian, round_gptq
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight, calibrate_weight


def case(seed: int, rows: int, columns: int, bits: int = 4, rank: int | None = None):
    """A weight with its ranges, and the second moment of correlated inputs."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, columns)).astype(np.float32)
    latent = rng.normal(size=(4 * columns, rank or max(1, columns // 3)))
    x = latent @ rng.normal(size=(latent.shape[1], columns)) + (0 if rank else 0.1) * rng.normal(
        size=(len(latent), columns)
    )
    return calibrate_weight(weight, bits), weight, x.T @ x


def error(weight: np.ndarray, codes: np.ndarray, hessian: np.ndarray, q: QuantizedWeight) -> np.ndarray:
    """Output error of each row, ``(w - q) H (w - q)^T``."""
    steps = np.asarray(codes, np.float64) - q.zero_point[:, None]
    difference = weight.astype(np.float64) - steps * q.scale.astype(np.float64)[:, None]
    return np.einsum("nk,nk->n", difference @ hessian, difference)


def rounded(
    weight: np.ndarray, hessian: np.ndarray, q: QuantizedWeight, sweeps: int = 0, block: int = 128, **options
) -> np.ndarray:
    hessian = FactoredHessian(hessian, **options) if options else hessian
    result = round_gptq(weight, hessian, q, sweeps=sweeps, block=block)
    assert result.scale is q.scale and result.zero_point is q.zero_point and result.bits == q.bits
    codes = result.codes
    assert codes.dtype == np.uint8 and codes.shape == weight.shape and codes.max() < 2**q.bits
    return codes


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(1, 40),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
    st.sampled_from([0, 2]),
)
def test_no_row_is_worse_than_rounded_to_nearest(seed, rows, columns, bits, act_order, sweeps):
    q, weight, hessian = case(seed, rows, columns, bits)
    codes = rounded(weight, hessian, q, act_order=act_order, sweeps=sweeps, block=7)
    nearest = error(weight, q.codes, hessian, q)
    assert (error(weight, codes, hessian, q) <= nearest * (1 + 1e-4)).all()


def test_correlated_inputs_lose_most_of_the_error_and_sweeps_lose_more():
    q, weight, hessian = case(0, 64, 96)
    nearest = error(weight, q.codes, hessian, q).sum()
    plain = error(weight, rounded(weight, hessian, q), hessian, q).sum()
    swept = error(weight, rounded(weight, hessian, q, sweeps=3), hessian, q).sum()
    assert plain < 0.4 * nearest and swept < plain


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_uncorrelated_inputs_are_rounded_to_nearest(seed, act_order):
    q, weight, _ = case(seed, 4, 12)
    hessian = np.diag(np.random.default_rng(seed).uniform(0, 5, 12))
    np.testing.assert_array_equal(rounded(weight, hessian, q, act_order=act_order, sweeps=1), q.codes)


@pytest.mark.parametrize("seed", range(5))
def test_tiny_cases_lie_between_the_optimum_and_nearest(seed):
    q, weight, hessian = case(seed, 3, 4, bits=2)
    every = np.array(list(product(range(4), repeat=4)), np.uint8)
    for row in range(3):
        one = QuantizedWeight(every, np.repeat(q.scale[row], 256), np.repeat(q.zero_point[row], 256), 2)
        best = error(np.repeat(weight[row : row + 1], 256, 0), every, hessian, one).min()
        codes = rounded(weight, hessian, q, damping=1e-6, sweeps=4)
        ours = error(weight, codes, hessian, q)[row]
        assert best * (1 - 1e-9) <= ours <= error(weight, q.codes, hessian, q)[row] * (1 + 1e-9)


def test_blocks_do_not_change_the_codes():
    q, weight, hessian = case(1, 10, 50)
    whole = rounded(weight, hessian, q, block=50)
    for block in (1, 7, 49):
        assert np.mean(rounded(weight, hessian, q, block=block) != whole) <= 0.01


def test_columns_are_rounded_as_the_algorithm_says():
    """Against the definition: after a column is fixed, the others are re-optimised freely by least squares."""
    q, weight, hessian = case(2, 3, 6)
    weight = weight * np.float32(0.6)  # nothing is clipped
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(6)
    expected = np.empty((3, 6))
    for row in range(3):
        w = weight[row].astype(np.float64)
        for j in range(6):
            step = np.rint(w[j] / q.scale[row])
            expected[row, j] = np.clip(step + q.zero_point[row], 0, 15)
            change = (expected[row, j] - q.zero_point[row]) * q.scale[row] - w[j]
            rest = slice(j + 1, 6)
            w[rest] -= np.linalg.solve(damped[rest, rest], damped[rest, j]) * change if j < 5 else 0
    codes = rounded(weight, hessian, q, act_order=False)
    fell_back = error(weight, expected, hessian, q) > error(weight, calibrated(weight, q), hessian, q)
    np.testing.assert_array_equal(codes[~fell_back], expected[~fell_back])
    assert not fell_back.all()


def calibrated(weight: np.ndarray, q: QuantizedWeight) -> np.ndarray:
    steps = np.rint(weight / q.scale[:, None]) + q.zero_point[:, None]
    return np.clip(steps, 0, 2**q.bits - 1).astype(np.uint8)


def test_sweeps_never_raise_the_error():
    q, weight, hessian = case(3, 8, 30)
    errors = [error(weight, rounded(weight, hessian, q, sweeps=sweeps, block=8), hessian, q) for sweeps in range(5)]
    assert (np.diff(errors, axis=0) <= 1e-4 * errors[0]).all() and (errors[-1] < errors[0]).any()


def test_singular_hessians_and_dead_inputs():
    q, weight, hessian = case(4, 5, 20, rank=3)
    assert error(weight, rounded(weight, hessian, q), hessian, q).sum() < error(weight, q.codes, hessian, q).sum()
    hessian[[2, 7]] = hessian[:, [2, 7]] = 0
    codes = rounded(weight, hessian, q, sweeps=1)
    np.testing.assert_array_equal(codes[:, [2, 7]], q.codes[:, [2, 7]])
    np.testing.assert_array_equal(rounded(weight, np.zeros((20, 20)), q), q.codes)
    one_image = np.ones((20, 20)) * 1e12
    assert (
        error(weight, rounded(weight, one_image, q), one_image, q).sum() <= error(weight, q.codes, one_image, q).sum()
    )
    np.testing.assert_array_equal(rounded(weight, np.diag(np.ones(20)), q, damping=0.0), q.codes)


def test_zero_columns_and_zero_weights():
    _, weight, hessian = case(5, 4, 10)
    weight[:, 3] = 0
    q = calibrate_weight(weight, 4)
    codes = rounded(weight, hessian, q)
    assert error(weight, codes, hessian, q).sum() <= error(weight, q.codes, hessian, q).sum()
    zeros = np.zeros_like(weight)
    q = calibrate_weight(zeros, 4)
    assert not QuantizedWeight(rounded(zeros, hessian, q), q.scale, q.zero_point, 4).dequantize().any()


def test_bad_input_is_refused():
    q, weight, hessian = case(6, 4, 5)
    with pytest.raises(CalibrationError, match="second moment"):
        rounded(weight, hessian * np.nan, q)
    with pytest.raises(CheckpointError, match="two axes"):
        rounded(weight * np.nan, hessian, q)
    with pytest.raises(ValueError, match="shapes"):
        rounded(weight, hessian[:3, :3], q)
    indefinite = np.array([[1.0, 1e9], [1e9, 1.0]])
    with pytest.raises(CalibrationError, match="positive"):
        rounded(weight[:, :2], indefinite, q)
