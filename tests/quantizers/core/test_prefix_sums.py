"""Prefix-sum errors against errors computed sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.core import prefix_sums as module
from tvm_ahcq.quantizers.core.prefix_sums import prefix_sums


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_equal_direct_sums(weighted):
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(50, 8)).astype(np.float32)
    importance = rng.uniform(0, 3, 8) if weighted else None
    thresholds = np.sort(rng.normal(size=(3, 5, 3)), -1).astype(np.float32)
    levels = np.sort(rng.normal(size=(3, 5, 4)), -1)
    ours = prefix_sums(samples, importance).squared_error(thresholds, levels)
    for i in np.ndindex(3, 5):
        values = levels[i][np.searchsorted(thresholds[i], samples)]
        weights = np.ones(8) if importance is None else importance
        np.testing.assert_allclose(ours[i], ((values - samples) ** 2 * weights).sum(), rtol=1e-9)


def test_large_sets_are_thinned_but_keep_their_extremes(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_LIMIT", 1000)
    samples = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    samples[17, 2], samples[99, 1] = 50, -60
    for importance in (None, np.ones(4)):
        thinned = prefix_sums(samples, importance)
        assert thinned.values.size == 1002
        assert (thinned.low, thinned.high) == (-60, 50)
