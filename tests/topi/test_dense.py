"""The float32 matrix product against numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.target import HostTarget
from tvm_ahcq.topi import matmul


@pytest.mark.parametrize(("n", "k"), [(1, 3), (4, 256), (64, 16), (100, 530), (130, 1100)])
def test_product_equals_numpy(build, target: HostTarget, n: int, k: int):
    """Few rows and many; whole and partial panels, one and several blocks of the sum."""
    rng = np.random.default_rng(n)
    run = build(matmul(Var("rows", "int64"), n, k, target))
    w, bias = rng.normal(size=(n, k)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    for m in (1, 7, 15, 16, 100, 211):
        x = rng.normal(size=(m, k)).astype(np.float32)
        expected = x.astype(np.float64) @ w.T.astype(np.float64) + bias
        # the error of a sum of k products grows with their magnitudes, not with the result
        magnitude = np.abs(x).astype(np.float64) @ np.abs(w).T.astype(np.float64) + np.abs(bias)
        got = run(x, w, bias, shape=(m, n), dtype="float32")
        assert (np.abs(got - expected) <= 2e-6 * magnitude).all()


def test_small_integers_are_exact(build, target: HostTarget):
    """Every sum fits in 24 bits, so that any order of additions gives the same result."""
    rng = np.random.default_rng(0)
    x, w, bias = (rng.integers(-30, 30, shape).astype(np.float32) for shape in ((50, 700), (70, 700), (70,)))
    got = build(matmul(50, 70, 700, target))(x, w, bias, shape=(50, 70), dtype="float32")
    assert np.array_equal(got, x @ w.T + bias)
