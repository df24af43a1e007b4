"""GEMMs with epilogues against the GEMM followed by the operator, by the integer semantics, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx import Var

from tvm_ahcq.kernels import linear_add, linear_codes, linear_heads, linear_intervals
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.runtime.weights import pack
from tvm_ahcq.target import HostTarget

from .test_dispatch import case

SIZES = (20, 32)
ANY = Var("rows", "int64")


@pytest.fixture(autouse=True)
def packed_weights(target: HostTarget) -> None:
    if target.layout != "vnni16":
        pytest.skip(f"target {target.name} has no kernels with epilogues")


def workload(outputs: int) -> LinearWorkload:
    """Of a layer of `layer`."""
    return LinearWorkload(outputs, sum(SIZES), len(SIZES))


def layer(rng: np.random.Generator, m: int, n: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments of a linear layer, and its outputs."""
    operands, weight, *rest = case(rng, m, n, SIZES)
    bounds = np.cumsum([0, *SIZES]).astype(np.int32)
    return [operands, pack(weight, "vnni16"), bounds, *rest], reference.grouped_linear(operands, weight, SIZES, *rest)


@pytest.mark.parametrize("n", [16, 48, 112])
def test_residual_is_added(build, target: HostTarget, n: int):
    rng = np.random.default_rng(n)
    run = build(linear_add(ANY, workload(n), target))
    for m in (1, 13, 100):
        arguments, y = layer(rng, m, n)
        residual = rng.normal(size=y.shape).astype(np.float32)
        assert np.array_equal(run(*arguments, residual, shape=y.shape, dtype="float32"), residual + y)


@pytest.mark.parametrize(("height", "width", "size"), [(10, 7, 4), (8, 8, 4), (3, 5, 7)], ids=str)
def test_windows_are_put_together(build, target: HostTarget, height: int, width: int, size: int):
    rng, windows, n, images = np.random.default_rng(size), Windows(height, width, size), 48, 2
    down, across = -(-height // size), -(-width // size)
    m = images * windows.per_image * windows.tokens
    arguments, y = layer(rng, m, n)
    whole = y.reshape(images, down, across, size, size, n).transpose(0, 1, 3, 2, 4, 5)
    whole = whole.reshape(images, down * size, across * size, n)[:, :height, :width].reshape(-1, n)
    residual = rng.normal(size=whole.shape).astype(np.float32)
    run = build(linear_add(m, workload(n), target, windows=windows))
    assert np.array_equal(run(*arguments, residual, shape=whole.shape, dtype="float32"), residual + whole)


@pytest.mark.parametrize("count", [1, 2, 14, 15, 16, 31])
def test_operands_are_found_by_interval(build, target: HostTarget, count: int):
    rng = np.random.default_rng(count)
    arguments, y = layer(rng, 37, 48)
    thresholds = np.sort(rng.normal(size=count) * y.std()).astype(np.float32)
    thresholds[0] = y[3, 5]  # equal to a threshold is not above it
    thresholds.sort()
    operands = rng.integers(0, 256, count + 1).astype(np.uint8)
    run = build(linear_intervals(ANY, workload(48), count, target))
    got = run(*arguments, thresholds, operands, shape=y.shape, dtype="uint8")
    assert np.array_equal(got, reference.encode_intervals(y, thresholds, operands))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_outputs_are_encoded(build, target: HostTarget, bits: int):
    rng = np.random.default_rng(bits)
    run = build(linear_codes(ANY, workload(48), bits, target))
    for m in (1, 37):
        arguments, y = layer(rng, m, 48)
        scale, zero = np.array([y.std() * 3 / 2**bits], np.float32), np.array([2 ** (bits - 1)], np.int32)
        expected = reference.encode_uniform(y, scale, zero, bits)
        assert np.array_equal(run(*arguments, scale, zero, shape=y.shape, dtype="uint8"), expected)


@pytest.mark.parametrize(
    ("tokens", "count", "d", "bits"),
    [(16, 2, 16, 4), (5, 3, 32, 6), (9, 1, 48, 8), (7, 2, 56, 4), (6, 4, 72, 4)],
    ids=str,
)
def test_heads_are_encoded_and_parted(build, target: HostTarget, tokens: int, count: int, d: int, bits: int):
    rng, sequences = np.random.default_rng(d), 3
    m, shape = sequences * tokens, (3, sequences * count, tokens, d)
    arguments, y = layer(rng, m, 3 * count * d)
    scales = [np.array([y.std() * 3 / 2**bits * factor], np.float32) for factor in (1, 0.7, 0.2)]
    zeros = [np.array([zero], np.int32) for zero in rng.integers(0, 2**bits, 3)]
    parts = y.reshape(sequences, tokens, 3, count, d).transpose(2, 0, 3, 1, 4).reshape(shape)
    expected = [reference.encode_uniform(*each, bits) for each in zip(parts, scales, zeros, strict=True)]
    run = build(linear_heads(m, workload(3 * count * d), tokens, count, bits, target))
    assert np.array_equal(run(*arguments, *scales, *zeros, shape=shape, dtype="uint8"), np.stack(expected))
