"""Masks from pixels against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.errors import AhcqError
from tvm_ahcq.kernels import hypernet_matmul


def gelu(x: np.ndarray) -> np.ndarray:
    """In float64."""
    return np.vectorize(lambda v: v / 2 * math.erfc(-v / math.sqrt(2)))(x.astype(np.float64))


@pytest.mark.parametrize("activation", ["identity", "gelu"])
@pytest.mark.parametrize("pixels, channels", [(16, 1), (1024, 32), (528, 5)])
def test_every_mask_at_every_pixel(build, pixels: int, channels: int, activation: str):
    rng = np.random.default_rng(0)
    run = build(hypernet_matmul(Var("b", "int64"), 4, pixels, channels, activation))
    for batch in (1, 3):
        weight = rng.normal(size=(batch, 4, channels)).astype(np.float32)
        x = rng.normal(size=(batch, pixels, channels)).astype(np.float32)
        active = gelu(x) if activation == "gelu" else x.astype(np.float64)
        expected = np.einsum("bmc,bpc->bmp", weight.astype(np.float64), active)
        got = run(weight, x, shape=(batch, 4, pixels), dtype="float32")
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pixels, activation", [(24, "gelu"), (32, "relu")])
def test_other_pixels_and_activations_are_refused(pixels: int, activation: str):
    with pytest.raises(AhcqError, match=rf"{pixels} pixels.*{activation}"):
        hypernet_matmul(1, 4, pixels, 8, activation)
