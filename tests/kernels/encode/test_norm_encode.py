"""Layer norm with encoder against one after the other, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.kernels import layer_norm, norm_encode
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.quantizers.core import reference

SIZES = (20, 12, 24)
EPS = 1e-6


def quantizer(rng: np.random.Generator, channels: int) -> tuple[np.ndarray, ...]:
    """Index, bounds, scale and zero point; a few places are padding."""
    index = np.concatenate([rng.permutation(channels), np.full(sum(SIZES) - channels, -1)]).astype(np.int32)
    rng.shuffle(index)
    scale, zero_point = rng.uniform(0.1, 0.5, len(SIZES)).astype(np.float32), rng.integers(0, 16, len(SIZES))
    return index, np.cumsum([0, *SIZES]).astype(np.int32), scale, zero_point.astype(np.int32)


def normalised(build, rng: np.random.Generator, rows: int, channels: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments of a layer norm, and its result."""
    x = rng.normal(1, 3, (rows, channels)).astype(np.float32)
    arguments = [x, *rng.normal(size=(2, channels)).astype(np.float32)]
    run = build(layer_norm(Var("m", "int64"), channels, EPS))
    return arguments, run(*arguments, shape=x.shape, dtype="float32")


@pytest.mark.parametrize("channels", [48, 52, 56])
def test_any_number_of_rows_is_encoded(build, channels: int):
    rng = np.random.default_rng(channels)
    run = build(norm_encode(Var("m", "int64"), channels, sum(SIZES), len(SIZES), 4, EPS))
    for rows in (1, 32, 75):
        arguments, y = normalised(build, rng, rows, channels)
        index, bounds, scale, zero_point = quantizer(rng, channels)
        expected = reference.encode_affine(y, index, SIZES, scale, zero_point, 4)
        got = run(*arguments, index, bounds, scale, zero_point, shape=expected.shape, dtype="uint8")
        assert np.array_equal(got, expected)


@pytest.mark.parametrize(("height", "width", "size"), [(10, 7, 4), (8, 8, 4), (3, 5, 7)], ids=str)
def test_tokens_are_put_in_window_order(build, height: int, width: int, size: int):
    """Those that fill windows up have the code of 0, which is not the code 0."""
    rng, images, channels = np.random.default_rng(size), 2, 52
    down, across = -(-height // size), -(-width // size)
    arguments, y = normalised(build, rng, images * height * width, channels)
    whole = np.zeros((images, down * size, across * size, channels), np.float32)
    whole[:, :height, :width] = y.reshape(images, height, width, channels)
    cut = whole.reshape(images, down, size, across, size, channels).transpose(0, 1, 3, 2, 4, 5).reshape(-1, channels)
    index, bounds, scale, zero_point = quantizer(rng, channels)
    expected = reference.encode_affine(cut, index, SIZES, scale, zero_point, 4)
    windows = Windows(height, width, size)
    run = build(norm_encode(len(y), channels, sum(SIZES), len(SIZES), 4, EPS, windows))
    got = run(*arguments, index, bounds, scale, zero_point, shape=expected.shape, dtype="uint8")
    assert np.array_equal(got, expected)
