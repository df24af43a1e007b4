"""Patches of codes against the integer semantics."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.kernels import im2col
from tvm_ahcq.quantizers.core import reference


@pytest.mark.parametrize(("h", "w", "c", "kernel"), [(5, 6, 8, 3), (1, 1, 3, 3), (4, 7, 5, 5), (3, 3, 4, 1)])
def test_patches_equal_the_reference(build, h: int, w: int, c: int, kernel: int):
    run = build(im2col(Var("batch", "int64"), h, w, c, kernel))
    for batch in (1, 3):
        codes = np.random.default_rng(batch).integers(0, 256, (batch, h, w, c), dtype=np.uint8)
        shape = (batch, h, w, kernel**2 * c)
        got = run(codes, np.array([9], np.int32), shape=shape, dtype="uint8")
        assert np.array_equal(got, reference.im2col(codes, kernel, 9))
