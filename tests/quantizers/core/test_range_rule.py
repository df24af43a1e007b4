"""The range rule: 0 is in every range and is a code, both ends are reached, degenerate ranges have a scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ahcq.quantizers.core.range_rule import MIN_SCALE, range_rule

ENDS = st.floats(-1e4, 1e4, width=32)


@given(ENDS, ENDS, st.sampled_from([2, 4, 8]))
def test_codes_cover_the_range_and_contain_zero(first, second, bits):
    low, high = sorted((first, second))
    scale, zero_point = range_rule(low, high, bits)
    assert scale.dtype == np.float32 and zero_point.dtype == np.int32
    assert 0 <= zero_point < 2**bits
    values = (np.arange(2**bits) - zero_point) * float(scale)
    assert values[zero_point] == 0
    # the zero point is rounded, which moves both ends by at most half a step
    assert values[0] <= min(low, 0) + 0.501 * scale and values[-1] >= max(high, 0) - 0.501 * scale


def test_ranges_are_taken_elementwise():
    low, high = np.float32([[-2, 0], [2, -4]]), np.float32([[1, 3], [5, -3]])
    scale, zero_point = range_rule(low, high, 4)
    np.testing.assert_allclose(scale, np.float32([[3, 3], [5, 4]]) / 15)
    np.testing.assert_array_equal(zero_point, [[10, 0], [0, 15]])


@pytest.mark.parametrize("low", [0.0, -1e-12])
def test_degenerate_ranges_have_the_least_scale(low):
    scale, zero_point = range_rule(low, 0.0, 8)
    assert scale == np.float32(MIN_SCALE) and zero_point == 0
