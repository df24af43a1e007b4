"""Layer normalisation against numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.kernels import layer_norm


@pytest.mark.parametrize("k", [3, 16, 64, 100, 256])
def test_rows_are_normalised(build, k: int):
    rng = np.random.default_rng(k)
    gamma, beta = rng.normal(size=k).astype(np.float32), rng.normal(size=k).astype(np.float32)
    run = build(layer_norm(Var("rows", "int64"), k, 1e-6))
    for m in (1, 32, 77):
        x = rng.normal(3, 2, size=(m, k)).astype(np.float32)
        wide = x.astype(np.float64)
        deviation = np.sqrt(wide.var(1, keepdims=True) + 1e-6)
        expected = ((wide - wide.mean(1, keepdims=True)) / deviation * gamma + beta).astype(np.float32)
        got = run(x, gamma, beta, shape=x.shape, dtype="float32")
        # computed in float64 and rounded once: the same bits in whatever order
        assert np.mean(got == expected) >= 0.9999
        np.testing.assert_array_max_ulp(got, expected, maxulp=1)


def test_constant_rows_give_beta(build):
    """The variance is 0: eps alone keeps the division finite, and a large mean leaves no residue."""
    beta = np.arange(64, dtype=np.float32)
    got = build(layer_norm(2, 64, 1e-5))(
        np.full((2, 64), 4096, np.float32), np.ones(64, np.float32), beta, shape=(2, 64), dtype="float32"
    )
    assert np.array_equal(got, np.tile(beta, (2, 1)))
