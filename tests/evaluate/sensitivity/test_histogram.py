"""Shares of values, whatever the values are."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.evaluate.sensitivity.histogram import BINS, LEAST_PROBABILITY, linear_histogram, log_histogram


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32),
        np.zeros(5, np.float32),
        np.full(5, -3.25, np.float32),
        np.float32([1e-30, -1e30]),
        np.float32([7.0]),
    ],
)
def test_every_value_is_counted_once_on_ascending_edges(values):
    histogram = linear_histogram(values)
    assert histogram.shares.shape == (BINS,) and histogram.shares.sum() == pytest.approx(1)
    assert (np.diff(histogram.edges) > 0).all()
    assert histogram.edges[0] <= values.min() and values.max() <= histogram.edges[-1]


def test_shares_equal_a_direct_count():
    values = np.random.default_rng(1).gamma(2, size=5000).astype(np.float32)
    histogram = linear_histogram(values)
    middle = (values >= histogram.edges[10]) & (values < histogram.edges[20])
    assert histogram.shares[10:20].sum() == pytest.approx(middle.mean())


def test_probabilities_below_the_logarithmic_axis_are_counted_apart():
    values = np.float32([0, 0, 1e-9, LEAST_PROBABILITY * 2, 0.5, 1.0, 1.0000001, 0.25])
    histogram = log_histogram(values)
    assert histogram.log and histogram.below == pytest.approx(3 / 8)
    assert histogram.shares.sum() + histogram.below == pytest.approx(1)
    assert histogram.shares[-1] == pytest.approx(2 / 8)
    np.testing.assert_allclose(np.diff(np.log(histogram.edges)), np.log(1 / LEAST_PROBABILITY) / BINS)
