"""Error-compensated rounding: never worse than to the nearest, and as good as can be where that can be known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ahcq.quantizers import gptq
from tvm_ahcq.quantizers.gptq import round_gptq
from tvm_ahcq.quantizers.weights import calibrate_weight


def case(seed: int, outputs: int, inputs: int, rank: int):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * inputs, rank)) @ rng.normal(size=(rank, inputs)) * rng.lognormal(0, 1, inputs)
    weight = rng.normal(size=(outputs, inputs)).astype(np.float32)
    return weight, x.T @ x / len(x)


def loss(weight, h, codes, ranges) -> np.ndarray:
    error = weight - (codes.astype(float) - ranges.zero_point[:, None]) * ranges.scale[:, None].astype(float)
    return np.einsum("nk,kl,nl->n", error, h, error)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 5, 6, 8]))
def test_no_row_is_worse_than_to_the_nearest(seed, outputs, inputs, rank, bits):
    weight, h = case(seed, outputs, inputs, rank)
    ranges = calibrate_weight(weight, bits)
    codes = round_gptq(weight, h, ranges.scale, ranges.zero_point, bits)
    assert codes.shape == weight.shape and codes.dtype == np.uint8 and codes.max() < 2**bits
    assert (loss(weight, h, codes, ranges) <= loss(weight, h, ranges.codes, ranges) * (1 + 1e-9)).all()


def test_correlated_inputs_gain_much():
    weight, h = case(0, 32, 200, 40)
    ranges = calibrate_weight(weight, 4)
    codes = round_gptq(weight, h, ranges.scale, ranges.zero_point, 4)
    assert loss(weight, h, codes, ranges).sum() < 0.5 * loss(weight, h, ranges.codes, ranges).sum()


def test_independent_inputs_are_rounded_to_the_nearest():
    weight, _ = case(1, 16, 30, 30)
    ranges = calibrate_weight(weight, 4)
    codes = round_gptq(weight, np.diag(np.arange(1.0, 31)), ranges.scale, ranges.zero_point, 4)
    np.testing.assert_array_equal(codes, ranges.codes)


def test_the_best_of_all_roundings_is_not_far():
    ratios = []
    for seed in range(20):
        weight, h = case(seed, 1, 4, 2)
        ranges = calibrate_weight(weight, 4)
        codes = round_gptq(weight, h, ranges.scale, ranges.zero_point, 4)
        near = np.array(list(product((-1, 0, 1), repeat=4)))
        every = np.clip(ranges.codes.astype(int) + near, 0, 15)
        best = min(loss(weight, h, c[None], ranges)[0] for c in every)
        ratios.append(loss(weight, h, codes, ranges)[0] / max(best, 1e-9 * np.trace(h)))
    assert np.median(ratios) < 3


def test_blocks_do_not_change_the_result(monkeypatch):
    weight, h = case(2, 8, 50, 50)
    ranges = calibrate_weight(weight, 4)
    whole = round_gptq(weight, h, ranges.scale, ranges.zero_point, 4)
    monkeypatch.setattr(gptq, "BLOCK", 7)
    parts = round_gptq(weight, h, ranges.scale, ranges.zero_point, 4)
    assert (whole != parts).mean() < 0.02


@pytest.mark.parametrize("dead", [slice(None), slice(3, 9)])
def test_inputs_that_are_always_zero_do_no_harm(dead):
    weight, h = case(3, 8, 20, 20)
    h[dead] = h[:, dead] = 0
    ranges = calibrate_weight(weight, 4)
    codes = round_gptq(weight, h, ranges.scale, ranges.zero_point, 4)
    np.testing.assert_array_equal(codes[:, dead], ranges.codes[:, dead])
