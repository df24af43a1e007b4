"""Codebooks against the formulas they stand for, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ahcq.quantizers.core.codebook import Codebook, build_codebook, float32_at_most, float32_below, last_float32
from tvm_ahcq.quantizers.core.reference import encode_uniform

FLOATS = st.floats(-(2**100), 2**100, width=32)
SCALES = st.floats(2**-20, 2**20, width=32)


def around(points: np.ndarray) -> np.ndarray:
    """The points and their neighbouring float32 numbers."""
    points = np.asarray(points, np.float32)
    infinity = np.float32(np.inf)
    return np.concatenate([points, np.nextafter(points, infinity), np.nextafter(points, -infinity)])


@given(scale=SCALES, bits=st.sampled_from([4, 5, 6, 8]), part=st.floats(0, 1))
def test_codebook_gives_exactly_the_formula_codes_on_and_beside_every_tie(scale, bits, part):
    zero_point = round(part * (2**bits - 1))
    book = build_codebook(lambda x: encode_uniform(x, scale, zero_point, bits), np.arange(2**bits) - zero_point, scale)
    ties = (np.arange(-1, 2**bits + 1) - zero_point + 0.5) * scale
    x = np.concatenate([around(ties), around(book.thresholds), np.float32([0, 1e30, -1e30])])
    np.testing.assert_array_equal(book.encode(x), encode_uniform(x, scale, zero_point, bits))
    assert (np.diff(book.thresholds) > 0).all()


@given(xs=st.lists(FLOATS, min_size=1, max_size=20), scale=SCALES)
def test_codebook_gives_exactly_the_formula_codes_anywhere(xs, scale):
    book = build_codebook(lambda x: encode_uniform(x, scale, 5, 4), np.arange(16) - 5, scale)
    x = np.float32(xs)
    np.testing.assert_array_equal(book.encode(x), encode_uniform(x, scale, 5, 4))


def test_operands_start_at_zero_and_decode_to_scaled_table():
    book = Codebook(np.float32([-0.5, 0.5, 1.5]), np.array([-1, 0, 1, 2]), 0.25, 1.0)
    codes = book.encode(np.float32([-9, -0.5, 0.5, 0.6, 9]))
    np.testing.assert_array_equal(codes, [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(book.operands(codes), [0, 0, 1, 2, 3])
    assert book.zero_point == 1
    np.testing.assert_array_equal(book.decode(codes), np.float32([0.75, 0.75, 1.0, 1.25, 1.5]))


def test_float64_arguments_are_compared_exactly():
    book = Codebook(np.float32([1.0]), np.array([0, 1]), 1.0)
    assert book.encode(np.array([1.0, 1.0 + 1e-12])).tolist() == [0, 1]


@given(x=st.floats(-1e30, 1e30), v=FLOATS)
def test_rounded_thresholds_decide_as_the_exact_ones(x, v):
    for point in around([v, x]):
        assert (point > float32_at_most(np.array(x))) == (float(point) > x)
        assert (point > float32_below(np.array(x))) == (float(point) >= x)


def test_bisection_marks_predicates_that_never_or_always_hold():
    limits = np.array([-5.0, 0.1, 5.0])
    points = last_float32(lambda x: x.astype(np.float64) <= limits, -1.0, 1.0, 3)
    np.testing.assert_array_equal(points, np.float32([-np.inf, float32_at_most(np.array(0.1)), np.inf]))


@pytest.mark.parametrize(
    ("thresholds", "table"),
    [([1.0, 0.0], [0, 1, 2]), ([0.0], [0, 1, 2]), ([0.0], [1, 0]), ([0.0], [0, 256]), ([np.nan], [0, 1])],
)
def test_unordered_or_too_wide_codebooks_are_refused(thresholds, table):
    with pytest.raises(ValueError, match=r"ascending|expected|operand"):
        Codebook(np.float32(thresholds), np.array(table), 1.0)
