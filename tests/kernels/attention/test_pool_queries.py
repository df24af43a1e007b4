"""Pooled queries against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.kernels import pool_queries


@pytest.mark.parametrize(("h", "w", "d"), [(2, 2, 16), (4, 6, 48), (8, 8, 20)], ids=str)
def test_each_query_is_the_maximum_of_four(build, h: int, w: int, d: int):
    operands = np.random.default_rng(d).integers(0, 16, (3, 5, h * w, d), dtype=np.uint8)
    got = build(pool_queries(5, h, w, d))(operands, shape=(5, h * w // 4, d), dtype="uint8")
    expected = operands[0].reshape(5, h // 2, 2, w // 2, 2, d).max((2, 4)).reshape(5, -1, d)
    np.testing.assert_array_equal(got, expected)
