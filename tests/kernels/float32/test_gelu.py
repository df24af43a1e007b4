"""GELU against the error function in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.kernels import gelu


def reference(x: np.ndarray) -> np.ndarray:
    """``x / 2 * (1 + erf(x / sqrt(2)))`` in float64."""
    return np.array([v / 2 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64).ravel()]).reshape(x.shape)


@pytest.mark.parametrize("k", [1, 7, 64, 1000])
def test_gelu_of_any_shape(build, k: int):
    run = build(gelu(Var("rows", "int64"), k))
    for m in (1, 5, 9):
        x = np.random.default_rng(m).normal(0, 2, (m, k)).astype(np.float32)
        np.testing.assert_allclose(run(x, shape=x.shape, dtype="float32"), reference(x), rtol=0, atol=1e-6)


def test_far_from_zero_it_is_the_identity_or_nothing(build):
    x = np.concatenate([np.linspace(-8, 8, 4001), [-1e30, -200, 200, 1e30, 0]]).astype(np.float32)[None]
    y = build(gelu(1, x.shape[1]))(x, shape=x.shape, dtype="float32")
    np.testing.assert_allclose(y, reference(x), rtol=1e-6, atol=2e-6)
    assert y[0, -1] == 0 and np.isfinite(y).all()
