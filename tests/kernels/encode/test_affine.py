"""Affine codes against the integer semantics, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.tirx import Var

from tvm_ahcq.kernels import encode_affine
from tvm_ahcq.quantizers.core import reference

ANY = Var("rows", "int64")


def bounds(sizes: tuple[int, ...]) -> np.ndarray:
    """Channels at which groups begin and end."""
    return np.cumsum([0, *sizes]).astype(np.int32)


def values(rng: np.random.Generator, m: int, k: int, scale: np.ndarray) -> np.ndarray:
    """Among them exact ties between two codes, and values far outside of the range."""
    x = rng.normal(size=(m, k)).astype(np.float32)
    ties = rng.random((m, k)) < 0.3
    x[ties] = (rng.integers(-8, 8, ties.sum()) + np.float32(0.5)) * rng.choice(scale, ties.sum())
    x[rng.random((m, k)) < 0.05] = np.float32(1e30)
    x[rng.random((m, k)) < 0.05] = np.float32(-1e30)
    return x


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 15).map(lambda i: 4 * i), min_size=1, max_size=4).map(tuple),
    padding=st.integers(0, 3),
    bits=st.integers(2, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_gathered_codes_equal_the_reference(build, sizes: tuple[int, ...], padding: int, bits: int, seed: int):
    rng = np.random.default_rng(seed)
    k = sum(sizes) - padding
    index = np.concatenate([rng.permutation(k), np.full(padding, -1)]).astype(np.int32)
    rng.shuffle(index)
    scale = rng.uniform(0.01, 1, len(sizes)).astype(np.float32)
    zero_point = rng.integers(0, 2**bits, len(sizes)).astype(np.int32)
    run = build(encode_affine(ANY, k, sum(sizes), len(sizes), bits, identity=False))
    for m in (1, 31, 300):  # the last one on several threads
        x = values(rng, m, k, scale)
        got = run(x, index, bounds(sizes), scale, zero_point, shape=(m, sum(sizes)), dtype="uint8")
        assert np.array_equal(got, reference.encode_affine(x, index, sizes, scale, zero_point, bits))


@pytest.mark.parametrize(("sizes", "bits"), [((48,), 4), ((20, 36, 8), 8), ((1,), 3)])
def test_ordered_codes_equal_the_reference(build, sizes: tuple[int, ...], bits: int):
    rng = np.random.default_rng(bits)
    k = sum(sizes)
    scale = rng.uniform(0.01, 1, len(sizes)).astype(np.float32)
    zero_point = rng.integers(0, 2**bits, len(sizes)).astype(np.int32)
    run = build(encode_affine(ANY, k, k, len(sizes), bits, identity=True))
    for m in (45, 401):
        x = values(rng, m, k, scale)
        got = run(x, bounds(sizes), scale, zero_point, shape=(m, k), dtype="uint8")
        assert np.array_equal(got, reference.encode_affine(x, np.arange(k), sizes, scale, zero_point, bits))


def test_division_is_not_a_multiplication_by_the_reciprocal(build):
    """Multiples and half-multiples of awkward scales: a rounded reciprocal misplaces some of the ties."""
    run = build(encode_affine(ANY, 64, 64, 1, 8, identity=True))
    steps = np.arange(0, 256, 0.5, dtype=np.float32).reshape(8, 64)
    for scale in np.float32([0.1, 0.3, 1 / 7, 0.0123]):
        x = steps * scale
        got = run(x, bounds((64,)), np.array([scale]), np.array([0], np.int32), shape=x.shape, dtype="uint8")
        assert np.array_equal(got, reference.encode_uniform(x, scale, 0, 8))
