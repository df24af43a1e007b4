"""Products in float64 against numpy in float64, both rounded to float32 once."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.topi import exact_matmul

ANY = Var("rows", "int64")


@pytest.mark.parametrize(("n", "k"), [(40, 768), (16, 3), (7, 100), (1, 1)])
def test_results_are_those_of_float64_rounded_once(build, n: int, k: int):
    rng = np.random.default_rng(n)
    w, bias = rng.normal(size=(n, k)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    run = build(exact_matmul(ANY, n, k))
    for m in (1, 6, 49, 130):
        x = rng.normal(size=(m, k)).astype(np.float32)
        expected = (x.astype(np.float64) @ w.astype(np.float64).T + bias).astype(np.float32)
        np.testing.assert_array_equal(run(x, w, bias, shape=(m, n), dtype="float32"), expected)


def test_cancellation_does_not_show(build):
    """In float32 the large terms would swallow the small ones."""
    k = 64
    x = np.tile(np.float32([1e6, 1e-3, -1e6, 1e-3]), k // 4)[None]
    got = build(exact_matmul(1, 5, k))(
        x, np.ones((5, k), np.float32), np.zeros(5, np.float32), shape=(1, 5), dtype="float32"
    )
    np.testing.assert_allclose(got, 2e-3 * k / 4, rtol=1e-4)
