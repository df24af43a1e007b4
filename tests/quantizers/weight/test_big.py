"""BIG against the reference vectors, scipy's peaks and density, and its edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.weight.big import channel_signs, estimate_density, find_peaks


def absorb(weight: np.ndarray, bias: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A projection whose rows took the signs of their channels."""
    return weight * signs[:, None].astype(np.float32), bias * signs.astype(np.float32)


@pytest.mark.parametrize("name", ["big_bimodal", "big_unimodal"])
def test_density_peaks_and_verdict(vectors, name):
    d = vectors(name)
    keys = d["x"] @ d["Wk"].T + d["bk"]
    ours = estimate_density(keys[0])
    np.testing.assert_allclose(ours.points, d["kde_x"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.density, d["kde_y"], rtol=1e-2)
    np.testing.assert_array_equal(ours.peaks, d["peaks"])
    assert ours.bimodal == d["is_bimodal"]


@pytest.mark.parametrize("name", ["big_bimodal", "big_unimodal"])
def test_signs_and_absorption(vectors, name):
    d = vectors(name)
    keys = d["x"] @ d["Wk"].T + d["bk"]
    signs = channel_signs(keys) if estimate_density(keys[0]).bimodal else np.ones(32, np.int8)
    if "sign" in d:
        np.testing.assert_array_equal(signs, d["sign"])
    for letter in "kq":
        weight, bias = absorb(d[f"W{letter}"], d[f"b{letter}"], signs)
        np.testing.assert_array_equal(weight, d[f"W{letter}2"])
        np.testing.assert_array_equal(bias, d[f"b{letter}2"])


def test_attention_logits_do_not_change():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 8)).astype(np.float32)
    q, k = ((rng.normal(size=(6, 8)).astype(np.float32), rng.normal(size=6).astype(np.float32)) for _ in range(2))
    signs = channel_signs(x @ k[0].T + k[1])
    before = (x @ q[0].T + q[1]) @ (x @ k[0].T + k[1]).T
    (wq, bq), (wk, bk) = absorb(*q, signs), absorb(*k, signs)
    np.testing.assert_allclose((x @ wq.T + bq) @ (x @ wk.T + bk).T, before, rtol=1e-4, atol=1e-4)


def test_a_channel_without_a_sign_is_kept_unless_the_slip_is_asked_for():
    keys = np.float32([[1, -2, 0], [-1, -1, 0]])
    np.testing.assert_array_equal(channel_signs(keys), [1, -1, 1])
    np.testing.assert_array_equal(channel_signs(keys, zero_erases=True), [0, -1, 0])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 6), st.integers(1, 20))
def test_peaks_are_scipys(levels, height, distance):
    # distinct heights, so that the order in which equal peaks are kept does not matter
    density = np.array(levels, np.float64)
    runs = np.concatenate([[0], np.cumsum(np.diff(density) != 0)])
    density = density + 1e-3 * runs
    expected, _ = signal.find_peaks(density, height=height, distance=distance)
    np.testing.assert_array_equal(find_peaks(density, height, distance), expected)


def test_density_is_scipys():
    values = np.random.default_rng(0).standard_t(5, 3000).astype(np.float32)
    ours = estimate_density(values)
    np.testing.assert_allclose(ours.density, stats.gaussian_kde(values)(ours.points), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("values", [np.zeros((4, 5)), np.full(7, 3.0), np.ones(1)])
def test_constant_keys_are_not_bimodal(values):
    ours = estimate_density(values)
    assert not ours.bimodal and np.isfinite(ours.density).all()


def test_bad_input_is_refused():
    with pytest.raises(CalibrationError, match="NaN"):
        estimate_density(np.array([np.nan]))
    with pytest.raises(CalibrationError, match="NaN"):
        channel_signs(np.array([[np.inf]]))
