"""Linear layers for the tests of lowering."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tvm_ahcq.codegen.lower.operators import LinearConstants
from tvm_ahcq.runtime.weights import pack


@pytest.fixture
def layer() -> Callable[..., tuple[LinearConstants, np.ndarray]]:
    """Makes constants as the compiler does, and the int8 weight they are of.

    The least and the greatest weight of `bits` bits occur; the last two channels of each group are padding.
    """

    def make(rng, outputs, sizes, zero_points, bits=4, layout="vnni16") -> tuple[LinearConstants, np.ndarray]:
        low = -(2 ** (bits - 1))
        weight = rng.integers(low, low + 2**bits, (outputs, sum(sizes))).astype(np.int8)
        weight[0], weight[1] = low, low + 2**bits - 1
        bounds = np.cumsum([0, *sizes]).astype(np.int32)
        for end in bounds[1:]:
            weight[:, end - 2 : end] = 0
        sums = np.stack([weight[:, a:b].sum(1, dtype=np.int32) for a, b in pairwise(bounds)])
        correction = (-np.asarray(zero_points, np.int32)[:, None] * sums).astype(np.int32)
        multiplier = rng.uniform(1e-4, 1e-2, correction.shape).astype(np.float32)
        bias = rng.normal(size=outputs).astype(np.float32)
        return LinearConstants(pack(weight, layout), bounds, multiplier, correction, bias), weight

    return make
