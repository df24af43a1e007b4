"""Weights retargeted to quantized inputs: least squares, unseen samples, edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.retarget import retarget_weight
from tvm_ahcq.quantizers.uniform import calibrate_uniform


def inputs(rows: int, columns: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Correlated inputs, and the same coarsely quantized."""
    mixing = np.random.default_rng(7).normal(size=(columns // 2, columns))
    x = (np.random.default_rng(rows).normal(size=(rows, columns // 2)) @ mixing).astype(np.float32)
    return x, calibrate_uniform(x, 3).fake_quant(x)


def output_error(weight: np.ndarray, new: np.ndarray, x: np.ndarray, x_q: np.ndarray) -> float:
    return float(np.mean((x @ weight.T - x_q @ new.T) ** 2))


def test_unseen_samples_lose_error_too():
    weight = np.random.default_rng(0).normal(size=(10, 24)).astype(np.float32)
    x, x_q = inputs(2000)
    ours = retarget_weight(weight, x_q.T @ x_q, x.T @ x_q)
    assert ours.dtype == np.float32
    unseen = inputs(1999)
    assert output_error(weight, ours, *unseen) < 0.8 * output_error(weight, weight, *unseen)


def test_with_little_damping_it_is_the_least_squares_solution():
    weight = np.random.default_rng(0).normal(size=(10, 24)).astype(np.float32)
    x, x_q = (part.astype(np.float64) for part in inputs(500))
    expected, *_ = np.linalg.lstsq(x_q, x @ weight.T, rcond=None)
    ours = retarget_weight(weight, x_q.T @ x_q, x.T @ x_q, damping=1e-9)
    np.testing.assert_allclose(ours, expected.T, rtol=1e-4, atol=1e-5)


def test_much_damping_equal_inputs_and_dead_inputs_keep_the_weight():
    weight = np.random.default_rng(0).normal(size=(10, 24)).astype(np.float32)
    x, x_q = inputs(300)
    np.testing.assert_allclose(retarget_weight(weight, x_q.T @ x_q, x.T @ x_q, damping=1e9), weight, atol=1e-6)
    np.testing.assert_array_equal(retarget_weight(weight, x.T @ x, x.T @ x), weight)
    x_q[:, 5] = 0
    np.testing.assert_allclose(retarget_weight(weight, x_q.T @ x_q, x.T @ x_q)[:, 5], weight[:, 5], atol=1e-6)
    np.testing.assert_array_equal(retarget_weight(weight, np.zeros((24, 24)), np.zeros((24, 24))), weight)


def test_one_image_of_few_rows_does_not_blow_up():
    weight = np.random.default_rng(0).normal(size=(10, 24)).astype(np.float32)
    x, x_q = inputs(3)
    ours = retarget_weight(weight, x_q.T @ x_q, x.T @ x_q)
    assert np.isfinite(ours).all() and np.linalg.norm(ours - weight) < np.linalg.norm(weight)


def test_bad_input_is_refused():
    weight, moment = np.ones((2, 3)), np.eye(3)
    with pytest.raises(CalibrationError, match="not finite"):
        retarget_weight(weight, moment * np.nan, moment)
    with pytest.raises(ValueError, match="shapes"):
        retarget_weight(weight, moment, np.eye(2))
    with pytest.raises(ValueError, match="positive damping"):
        retarget_weight(weight, moment, moment, damping=0)
