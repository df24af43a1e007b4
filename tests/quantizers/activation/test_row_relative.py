"""Row-relative softmax codes: the formula, the rows' sums, and the search."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.lnq import calibrate_lnq
from tvm_ahcq.quantizers.activation.row_relative import ALPHAS, RowRelativeParams, calibrate_row_relative
from tvm_ahcq.quantizers.core.params import params_from_dict


def softmax(logits: np.ndarray) -> np.ndarray:
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return (exps / exps.sum(-1, keepdims=True)).astype(np.float32)


def rows(seed: int, keys: int, sharpness: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of 12 heads of 60 queries, and values."""
    rng = np.random.default_rng(seed)
    probs = softmax(rng.normal(size=(12, 60, keys)) * sharpness)
    return probs, (rng.normal(size=(12, keys, 16)) + 0.3).astype(np.float32)


def output_error(probs: np.ndarray, rounded: np.ndarray, values: np.ndarray) -> float:
    exact = probs @ values
    return float(np.mean((rounded @ values - exact) ** 2) / exact.var())


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_codes_follow_the_formula(bits: int):
    params, n = RowRelativeParams(bits, 37.0), 2**bits - 1
    probs, _ = rows(bits, 100, 3.0)
    relative = probs / probs.max(-1, keepdims=True)
    formula = np.rint(n * np.log1p(37.0 * relative.astype(np.float64)) / np.log1p(37.0))
    assert (params.encode(probs) == formula).mean() > 0.9999  # float32 division
    assert (params.encode(probs).max(-1) == n).all()
    assert params.table()[0] == 0
    assert params.table()[-1] == 255


def test_rows_sum_to_one_and_do_not_depend_on_their_scale():
    params, (probs, _) = RowRelativeParams(4, 20.0), rows(0, 50, 2.0)
    rounded = params.fake_quant(probs)
    np.testing.assert_allclose(rounded.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(params.encode(probs * np.float32(0.25)), params.encode(probs))
    assert (params.fake_quant(np.zeros((2, 5))) == 0).all()


def test_parameters_survive_json():
    params = RowRelativeParams(4, 50.8)
    assert params.to_dict() == {"kind": "row_relative", "bits": 4, "alpha": 50.8}
    assert params_from_dict(params.to_dict()) == params


@pytest.mark.parametrize(
    ("keys", "sharpness"), [(196, 1.0), (1024, np.linspace(0.3, 8, 12)[:, None, None]), (196, 6.0)], ids=str
)
def test_error_of_the_output_is_less_than_half_of_lnqs(keys: int, sharpness):
    probs, values = rows(keys, keys, sharpness)
    ours, lnq = calibrate_row_relative(probs, values, 4), calibrate_lnq(probs, values, 4)
    error = output_error(probs, ours.fake_quant(probs), values)
    assert error < output_error(probs, lnq.fake_quant(probs), values) / 2


def test_search_finds_the_least_error_of_the_output():
    probs, values = rows(3, 64, 2.0)
    found = calibrate_row_relative(probs, values, 4)

    def error(alpha: float) -> float:
        return output_error(probs, RowRelativeParams(4, alpha).fake_quant(probs), values)

    assert error(found.alpha) <= 1.001 * min(map(error, ALPHAS))


def test_rows_of_zeros_are_padding():
    probs, values = rows(4, 64, 2.0)
    padded = np.concatenate([probs, np.zeros((12, 30, 64), np.float32)], 1)
    assert calibrate_row_relative(padded, values, 4) == calibrate_row_relative(probs, values, 4)


def test_degenerate_and_wrong_inputs():
    assert calibrate_row_relative(np.ones((1, 4, 1)), None, 4).fake_quant(np.float32([[0.3]]))[0, 0] == 1
    with pytest.raises(CalibrationError, match="row-relative"):
        calibrate_row_relative(np.full((1, 1, 1), np.nan), None, 4)
    with pytest.raises(ValueError, match="alpha"):
        RowRelativeParams(4, 0.0)
