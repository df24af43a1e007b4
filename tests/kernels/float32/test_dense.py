"""The matrix product against numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.errors import AhcqError
from tvm_ahcq.kernels import matmul
from tvm_ahcq.target import HostTarget


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


@pytest.mark.parametrize(("n", "k"), [(1, 3), (4, 256), (16, 1), (44, 768), (64, 16), (100, 1100)])
def test_float64_sums_are_rounded_once(build, target: HostTarget, n: int, k: int):
    """Few rows and many, whole and partial panels: the same bits as numpy's own order of the sum."""
    rng = np.random.default_rng(n)
    run = build(matmul(Var("rows", "int64"), n, k, target, accumulate="float64"))
    w, bias = rng.normal(size=(n, k)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    for m in (1, 7, 15, 16, 100, 211):
        x = rng.normal(size=(m, k)).astype(np.float32)
        expected = (x.astype(np.float64) @ w.T.astype(np.float64) + bias).astype(np.float32)
        got = run(x, w, bias, shape=(m, n), dtype="float32")
        assert np.mean(got == expected) >= 0.9999
        np.testing.assert_array_max_ulp(got, expected, maxulp=1)


@pytest.mark.parametrize("m", [3, 40])
def test_float64_sums_keep_small_terms_beside_large_ones(build, target: HostTarget, m: int):
    """The large terms cancel only 600 steps later, across what is a block of a float32 sum."""
    n, k = 37, 1200
    x = np.full((m, k), 2.0**-20, np.float32)
    x[:, 0], x[:, 600] = 2.0**20, -(2.0**20)
    bias = np.arange(n, dtype=np.float32)
    got = build(matmul(m, n, k, target, accumulate="float64"))(
        x, np.ones((n, k), np.float32), bias, shape=(m, n), dtype="float32"
    )
    expected = ((k - 2) * 2.0**-20 + bias.astype(np.float64)).astype(np.float32)
    assert np.array_equal(got, np.tile(expected, (m, 1)))


def test_unknown_type_of_sums_is_refused(target: HostTarget):
    with pytest.raises(AhcqError, match="float16"):
        matmul(4, 4, 4, target, accumulate="float16")
