"""Fused activation and quantizer against quantizing the activation's output."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ahcq.quantizers.activation.hluq import HluqParams, table_shapes
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.intervals import GELU_ARGMIN, gelu, interval_encoder, relu
from tvm_ahcq.quantizers.core.reference import encode_intervals

HLUQ = st.tuples(
    st.sampled_from([4, 5, 6, 8]), st.integers(0, 10**6), st.floats(2**-10, 2, width=32), st.floats(0, 1.5)
)
SWEEP = np.concatenate([np.linspace(-12, 12, 20001), np.linspace(-1e4, 1e4, 2001), [1e37, -1e37, 0.0]]).astype(
    np.float32
)


def hluq(drawn) -> HluqParams:
    bits, pick, reach, part = drawn
    levels, step = table_shapes(bits)[pick % len(table_shapes(bits))]
    return HluqParams(bits, levels, step, reach / 20, -0.16997 * part)


def oracle(x: np.ndarray, params, function) -> np.ndarray:
    book = params.codebook()
    return book.operands(book.encode(function(x)))


@given(HLUQ)
def test_gelu_intervals_equal_quantized_gelu(drawn):
    params = hluq(drawn)
    thresholds, operands = interval_encoder(params.codebook(), "gelu")
    assert thresholds.dtype == np.float32 and operands.dtype == np.uint8
    assert operands.shape == (thresholds.size + 1,) and thresholds.size <= 2 * (2**params.bits - 1)
    assert (np.diff(thresholds) > 0).all() and np.isfinite(thresholds).all()
    x = np.concatenate([SWEEP, np.linspace(-1.5, 0, 4001, dtype=np.float32)])
    np.testing.assert_array_equal(encode_intervals(x, thresholds, operands), oracle(x, params, gelu))


@given(HLUQ)
def test_gelu_intervals_switch_within_one_float_of_the_exact_point(drawn):
    params = hluq(drawn)
    thresholds, operands = interval_encoder(params.codebook(), "gelu")
    for x in (thresholds, np.nextafter(thresholds, np.float32(np.inf))):
        np.testing.assert_array_equal(encode_intervals(x, thresholds, operands), oracle(x, params, gelu))


def test_gelu_dip_is_resolved_on_both_sides_of_its_minimum():
    params = UniformParams(8, 0.001, 200)  # finer than the dip: codes fall and rise again
    thresholds, operands = interval_encoder(params.codebook(), "gelu")
    steps = np.diff(operands.astype(int))
    assert (steps[thresholds[: steps.size] < GELU_ARGMIN] == -1).all() and (steps < 0).sum() > 100
    assert (steps[thresholds[: steps.size] > GELU_ARGMIN] == 1).all()
    np.testing.assert_array_equal(encode_intervals(SWEEP, thresholds, operands), oracle(SWEEP, params, gelu))


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_relu_and_identity_intervals(bits):
    params = UniformParams(bits, 0.37, 0)
    thresholds, operands = interval_encoder(params.codebook(), "relu")
    np.testing.assert_array_equal(encode_intervals(SWEEP, thresholds, operands), oracle(SWEEP, params, relu))
    signed = UniformParams(bits, 0.37, 5)
    thresholds, operands = interval_encoder(signed.codebook(), "identity")
    np.testing.assert_array_equal(encode_intervals(SWEEP, thresholds, operands), signed.encode(SWEEP))


def test_gelu_turns_where_its_derivative_vanishes():
    phi = math.exp(-(GELU_ARGMIN**2) / 2) / math.sqrt(2 * math.pi)
    derivative = 0.5 * math.erfc(-GELU_ARGMIN * math.sqrt(0.5)) + GELU_ARGMIN * phi
    assert abs(derivative) < 1e-7


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="gelu, relu, identity"):
        interval_encoder(UniformParams(4, 1.0, 0).codebook(), "tanh")
