"""Weight ranges: the published search against the reference vectors, the fast search against the published one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tvm_ahcq.errors import CheckpointError
from tvm_ahcq.quantizers.weight import weights
from tvm_ahcq.quantizers.weight.weights import calibrate_weight, encode_weight

WEIGHTS = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-8, 8, width=32))


def power_loss(quantized, w: np.ndarray, power: float) -> np.ndarray:
    error = np.abs(quantized.dequantize().astype(np.float64) - w).reshape(len(w), -1)
    return (error**power).mean(1)


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("name", ["w", "wpos", "wconv"])
def test_published_search_reproduces_ranges_scores_and_codes(vectors, name, bits):
    d = vectors("uniform")
    key, w = f"b{bits}_{name}", d[name]
    ours = calibrate_weight(w, bits, "search")
    low, high = (end * ours.scale for end in (-1.0 * ours.zero_point, 2**bits - 1.0 - ours.zero_point))
    same = ours.zero_point == d[f"{key}_zp"]
    for computed, reference in ((ours.scale, "scale"), (low, "min"), (high, "max")):
        same &= np.isclose(computed, d[f"{key}_{reference}"], rtol=1e-4)
    assert np.mean(same) >= 0.95
    assert (power_loss(ours, w, 2.4) <= d[f"{key}_score"] * (1 + 1e-3)).all()
    given_range = encode_weight(w, d[f"{key}_scale"], d[f"{key}_zp"], bits)
    np.testing.assert_allclose(power_loss(given_range, w, 2.4), d[f"{key}_score"], rtol=1e-3)
    assert np.mean(given_range.codes != d[f"{key}_rtn_codes"]) <= 1e-3


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_fast_search_is_about_as_good_as_the_published_one(bits):
    rng = np.random.default_rng(0)
    for w in (rng.normal(size=(12, 200)), rng.standard_t(4, (12, 200)), rng.normal(0.5, 1, (12, 200))):
        w = w.astype(np.float32)
        fast, exhaustive = calibrate_weight(w, bits), calibrate_weight(w, bits, "search")
        assert power_loss(fast, w, 2).mean() <= 1.03 * power_loss(exhaustive, w, 2).mean()


@given(WEIGHTS, st.sampled_from([4, 5, 6, 8]))
def test_codes_fit_and_zero_is_exact(w, bits):
    quantized = calibrate_weight(w, bits)
    assert quantized.codes.shape == w.shape and quantized.codes.dtype == np.uint8
    assert quantized.scale.dtype == np.float32 and quantized.zero_point.dtype == np.uint8
    assert quantized.scale.shape == quantized.zero_point.shape == (len(w),)
    assert quantized.codes.max() < 2**bits and (quantized.scale > 0).all()
    assert not quantized.dequantize()[w == 0].any()
    operand = quantized.codes.astype(int) - quantized.zero_point.reshape((-1,) + (1,) * (w.ndim - 1))
    assert operand.min() >= -128 and operand.max() <= 127
    np.testing.assert_array_equal(encode_weight(w, quantized.scale, quantized.zero_point, bits).codes, quantized.codes)


@pytest.mark.parametrize("method", ["mse", "search"])
@pytest.mark.parametrize("sign", [1, -1])
def test_eight_bits_take_zero_point_128_and_cover_one_sided_rows(method, sign):
    w = sign * np.random.default_rng(0).uniform(0.5, 1, (4, 50)).astype(np.float32)
    quantized = calibrate_weight(w, 8, method)
    assert (quantized.zero_point == 128).all()
    np.testing.assert_allclose(quantized.dequantize(), w, atol=0.01)


def test_an_offset_folds_into_the_bias_as_the_float32_that_it_stands_for():
    rng = np.random.default_rng(0)
    quantized, bias = calibrate_weight(rng.normal(size=(64, 256)), 4), rng.normal(size=64).astype(np.float32)
    offset = np.float32(-0.16997124)
    shortest = float(str(offset))
    assert shortest != float(offset)
    folded = quantized.folded_bias(bias, shortest)
    np.testing.assert_array_equal(folded, quantized.folded_bias(bias, float(offset)))
    np.testing.assert_allclose(folded, bias + quantized.dequantize().sum(1) * offset, rtol=1e-4, atol=1e-5)


def test_blocks_do_not_change_the_result(monkeypatch):
    w = np.random.default_rng(0).normal(size=(10, 40)).astype(np.float32)
    whole = calibrate_weight(w, 4)
    monkeypatch.setattr("tvm_ahcq.quantizers.weight.weights._BLOCK", 120)
    parts = calibrate_weight(w, 4)
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_array_equal(whole.scale, parts.scale)


@pytest.mark.parametrize("w", [np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_empty_or_broken_weights_are_refused(w):
    with pytest.raises(CheckpointError, match="check the checkpoint"):
        calibrate_weight(w, 4)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="mse, search, minmax"):
        calibrate_weight(np.ones((2, 2)), 4, "best")


def test_the_number_of_threads_does_not_matter(monkeypatch):
    w = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    monkeypatch.setattr(weights, "_BLOCK", 90)
    results = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(weights, "WORKERS", threads)
        results.append(calibrate_weight(w, 4))
    for other in results[1:]:
        np.testing.assert_array_equal(other.codes, results[0].codes)
        np.testing.assert_array_equal(other.scale, results[0].scale)
