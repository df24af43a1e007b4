"""The deployed HLUQ: integer table, agreement with the published formula, calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ahcq.errors import CalibrationError, QuantTableError
from tvm_ahcq.quantizers.activation.hluq import HluqParams, calibrate_hluq, table_shapes
from tvm_ahcq.quantizers.activation.uniform import calibrate_uniform
from tvm_ahcq.quantizers.core.params import params_from_dict
from tvm_ahcq.quantizers.published.hluq import HluqScales, encode_published, fake_quant_published, search_published

BITS = (4, 5, 6, 8)
PARAMS = st.builds(
    lambda bits, pick, delta, offset: HluqParams(
        bits, *table_shapes(bits)[pick % len(table_shapes(bits))], delta, offset
    ),
    st.sampled_from(BITS),
    st.integers(0, 10**6),
    st.floats(2**-10, 2, width=32),
    st.floats(-0.25, 0, width=32),
)


def squared_error(params, x: np.ndarray) -> float:
    return float(np.mean((params.fake_quant(x) - x.astype(np.float64)) ** 2))


@pytest.mark.parametrize("bits", BITS)
def test_every_offered_table_is_an_ascending_byte_table_of_all_codes(bits):
    for levels, step in table_shapes(bits):
        table = HluqParams(bits, levels, step, 1.0, 0.0).table().astype(int)
        assert table.size == 2**bits and table[0] == 0 and table[-1] <= 255
        assert (np.diff(table) > 0).all()
        assert (table[1 : levels + 1] == 2 ** np.arange(levels)).all()
        assert (np.diff(table[max(levels, 1) :]) == step).all()
    assert len(table_shapes(bits)) == len(set(table_shapes(bits)))


@given(PARAMS)
def test_codes_equal_the_published_formula_away_from_ties(params):
    if params.log_levels == 0:
        return  # the published formula has no table without powers of two
    scale_log = params.delta * 2 ** (params.log_levels - 1)
    rate = params.log_levels / 2**params.bits
    scales = HluqScales(params.bits, params.offset, scale_log, params.delta * params.step, rate)
    book = params.codebook()
    reach = params.delta * 300
    x = np.linspace(params.offset - 0.1 * reach, params.offset + reach, 3001).astype(np.float32)
    tie = np.abs(x[:, None] - book.thresholds).min(1) < 1e-6 * reach
    np.testing.assert_array_equal(book.encode(x)[~tie], encode_published(x, scales)[~tie])
    np.testing.assert_allclose(book.decode(np.arange(2**params.bits)), scales.table(), rtol=1e-5, atol=1e-6 * reach)


def test_ties_between_uniform_levels_round_to_the_even_level():
    params = HluqParams(4, 2, 4, 1.0, 0.0)  # entries 0 1 2 6 10 ..; ties at 4 (u 0|1), 8 (u 1|2), 12 (u 2|3)
    np.testing.assert_array_equal(params.fake_quant(np.float32([4, 8, 12])), [2, 10, 10])
    linear = HluqParams(8, 0, 1, 1.0, 0.0)
    np.testing.assert_array_equal(linear.fake_quant(np.float32([0.5, 1.5, 2.5, -3, 999])), [0, 2, 2, 0, 255])


@given(PARAMS)
def test_json_round_trip_and_codebook(params):
    assert params_from_dict(params.to_dict()) == params
    (book,) = params.codebooks()
    codes = np.arange(2**params.bits)
    np.testing.assert_array_equal(book.operands(codes), params.table())
    np.testing.assert_array_equal(book.encode(book.decode(codes)), codes)


@pytest.mark.parametrize("bits", [4, 5, 6])
@pytest.mark.parametrize("name", ["hluq_large", "hluq_small"])
def test_constrained_table_beats_the_published_search_and_uniform(vectors, name, bits):
    d = vectors(name)
    importance = (d["weight"].astype(np.float64) ** 2).sum(0)
    ours = calibrate_hluq(d["x"], bits, importance)
    published, _ = search_published(d["x"], d["weight"], bits)

    def output_error(values: np.ndarray) -> float:
        return float(np.mean(((values - d["x"]) @ d["weight"].T) ** 2))

    error = output_error(ours.fake_quant(d["x"]))
    assert error < output_error(fake_quant_published(d["x"], published))
    assert error < output_error(calibrate_uniform(d["x"], bits, importance=importance).fake_quant(d["x"]))


@pytest.mark.parametrize("bits", BITS)
def test_calibration_is_never_much_worse_than_uniform(bits):
    rng = np.random.default_rng(0)
    for x in (rng.exponential(size=4000), np.maximum(rng.normal(size=4000), 0), rng.uniform(0, 1, 4000)):
        x = x.astype(np.float32)
        assert squared_error(calibrate_hluq(x, bits), x) <= 1.05 * squared_error(calibrate_uniform(x, bits), x)


def test_offset_is_the_least_sample_when_it_is_not_searched_and_zero_for_relu():
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000).astype(np.float32)
    gelu_like = np.where(x > 0, x, 0.17 * np.tanh(x))
    assert np.float32(calibrate_hluq(gelu_like, 4, search_offset=False).offset) == gelu_like.min()
    searched = calibrate_hluq(gelu_like, 4)
    assert gelu_like.min() <= searched.offset <= 0
    assert squared_error(searched, gelu_like) <= squared_error(
        calibrate_hluq(gelu_like, 4, search_offset=False), gelu_like
    )
    assert calibrate_hluq(np.maximum(x, 0), 4).offset == 0


def test_a_constant_tensor_calibrates_to_its_value():
    params = calibrate_hluq(np.full(10, 0.25), 4)
    assert params.fake_quant(np.float32([0.25]))[0] == 0.25


def test_tables_beyond_a_byte_and_bad_samples_are_refused():
    with pytest.raises(ValueError, match="at most 255 fit"):
        HluqParams(8, 4, 1, 1.0, 0.0)
    with pytest.raises(QuantTableError, match="at most 255 fit"):
        params_from_dict({"kind": "hluq", "bits": 4, "log_levels": 2, "step": 30, "delta": 1.0, "offset": 0.0})
    with pytest.raises(CalibrationError, match="HLUQ"):
        calibrate_hluq(np.zeros(0), 4)
