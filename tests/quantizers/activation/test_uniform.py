"""Uniform quantizer: reference vectors, and properties of its parameters and calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.uniform import UniformParams, calibrate_uniform, uniform_error, uniform_from_range
from tvm_ahcq.quantizers.core.params import params_from_dict
from tvm_ahcq.quantizers.core.prefix_sums import prefix_sums

SAMPLES = arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e3, 1e3, width=32))
BITS = st.sampled_from([4, 5, 6, 8])


@pytest.mark.parametrize("bits", [4, 6])
def test_published_range_rule_and_codes(vectors, bits):
    d = vectors("uniform")
    low, high, scale, zero_point = d[f"b{bits}_act"]
    params = uniform_from_range(d["x"].min((1, 2)).mean(), d["x"].max((1, 2)).mean(), bits)
    np.testing.assert_allclose(params.scale, scale, rtol=1e-5)
    assert params.zero_point == zero_point
    assert params == uniform_from_range(low, high, bits)
    assert np.mean(params.encode(d["x"][-1]) != d[f"b{bits}_act_codes"]) <= 2e-3


@given(SAMPLES, BITS, st.sampled_from(["mse", "minmax"]))
def test_zero_is_exactly_representable(samples, bits, method):
    params = calibrate_uniform(samples, bits, method)
    assert params.fake_quant(np.zeros(1, np.float32))[0] == 0
    assert params.encode(np.zeros(1, np.float32))[0] == params.zero_point


@given(SAMPLES, BITS)
def test_searched_range_is_never_worse_than_the_whole_one(samples, bits):
    def error(params):
        return np.sum((params.fake_quant(samples).astype(np.float64) - samples) ** 2)

    floor = 1e-9 * np.sum(samples.astype(np.float64) ** 2)
    assert error(calibrate_uniform(samples, bits)) <= error(calibrate_uniform(samples, bits, "minmax")) * 1.0001 + floor


@given(st.floats(2**-20, 2**20, width=32), BITS, st.floats(0, 1))
def test_codebook_and_json_round_trip(scale, bits, part):
    params = UniformParams(bits, scale, round(part * (2**bits - 1)))
    assert params_from_dict(params.to_dict()) == params
    assert np.float32(params.scale) == np.float32(scale)
    x = np.linspace(-300, 300, 601, dtype=np.float32) * np.float32(scale) / 2
    (book,) = params.codebooks()
    np.testing.assert_array_equal(book.encode(x), params.encode(x))
    np.testing.assert_array_equal(book.decode(book.encode(x)), params.fake_quant(x))


def test_search_beats_every_range_of_a_dense_grid():
    samples = np.random.default_rng(3).standard_t(3, 5000).astype(np.float32) + np.float32(0.5)
    moments = prefix_sums(samples)
    ours = calibrate_uniform(samples, 4)
    grid = np.linspace(0.01, 1, 100)
    candidates = [uniform_from_range(samples.min() * a, samples.max() * b, 4) for a in grid for b in grid]
    scale = np.array([c.scale for c in candidates])
    zero_point = np.array([c.zero_point for c in candidates])
    best = uniform_error(moments, scale, zero_point, 4).min()
    assert uniform_error(moments, np.array(ours.scale), np.array(ours.zero_point), 4) <= 1.01 * best


def test_importance_draws_the_range_to_the_channel_that_matters():
    samples = np.stack([np.linspace(-1, 1, 500), np.linspace(-10, 10, 500)], 1).astype(np.float32)
    even = calibrate_uniform(samples, 4)
    drawn = calibrate_uniform(samples, 4, importance=np.array([1e6, 1.0]))
    assert drawn.scale < 0.3 * even.scale


@pytest.mark.parametrize("samples", [np.zeros(0), np.array([1.0, np.nan]), np.array([np.inf])])
def test_missing_or_infinite_samples_are_refused(samples):
    with pytest.raises(CalibrationError, match="uniform quantizer"):
        calibrate_uniform(samples, 4)


@pytest.mark.parametrize(("bits", "scale", "zero_point"), [(4, 0.0, 0), (4, np.inf, 0), (4, 1.0, 16), (9, 1.0, 0)])
def test_parameters_out_of_range_are_refused(bits, scale, zero_point):
    with pytest.raises(ValueError, match="expected"):
        UniformParams(bits, scale, zero_point)
