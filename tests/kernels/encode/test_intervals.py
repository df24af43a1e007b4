"""Operands by interval against the integer semantics, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.kernels import encode_intervals
from tvm_ahcq.quantizers.core import reference


@pytest.mark.parametrize("n", [1, 2, 7, 15, 32, 33, 64, 200, 255])
def test_operands_equal_the_reference(build, n: int):
    """Both sides of the switch to a binary search; a value equal to a threshold does not exceed it."""
    rng = np.random.default_rng(n)
    thresholds = np.sort(rng.normal(size=n)).astype(np.float32)
    operands = rng.integers(0, 256, n + 1).astype(np.uint8)
    run = build(encode_intervals(Var("rows", "int64"), 37, n))
    for m in (1, 20, 250):
        x = rng.normal(size=(m, 37)).astype(np.float32)
        near = rng.choice(thresholds, x.shape)
        x = np.where(rng.random(x.shape) < 0.3, near, x)
        x = np.where(rng.random(x.shape) < 0.1, np.nextafter(near, np.float32(9)), x).astype(np.float32)
        x[0, :2] = 3e38, -3e38
        got = run(x, thresholds, operands, shape=x.shape, dtype="uint8")
        assert np.array_equal(got, reference.encode_intervals(x, thresholds, operands))


def test_equal_thresholds_are_exceeded_together(build):
    thresholds = np.float32([0, 0, 0, 1, 1])
    operands = np.arange(6, dtype=np.uint8)
    x = np.float32([[-1, 0, 0.5, 1, 2]])
    got = build(encode_intervals(1, 5, 5))(x, thresholds, operands, shape=(1, 5), dtype="uint8")
    assert got.tolist() == [[0, 0, 3, 3, 5]]
