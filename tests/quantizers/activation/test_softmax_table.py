"""Search and loss of softmax tables against loops over all candidates."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.quantizers.activation import softmax_table
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.softmax_table import search_table, table_loss, thin_softmax_samples


def test_the_search_finds_a_narrow_basin_near_a_leader():
    def loss(shape: int, scale: float) -> float:
        basin = 1.0 if abs(scale - 0.43) > 0.02 or shape != 2 else 0.0
        return basin + abs(scale - 0.45) + 0.01 * shape

    shape, scale = search_table(
        loss, (1, 2, 3), np.array([0.1, 0.4, 0.7]), lambda scale: scale + np.array([-0.03, 0.0, 0.03]), leaders=3
    )
    assert shape == 2 and abs(scale - 0.43) < 1e-9


def test_the_coarse_best_stays_if_its_neighbourhood_is_worse():
    shape, scale = search_table(
        lambda shape, scale: abs(scale - 0.5),
        (1,),
        np.array([0.2, 0.5]),
        lambda scale: np.array([scale + 0.1]),
        leaders=2,
    )
    assert (shape, scale) == (1, 0.5)


def test_the_loss_is_that_of_the_quantizers_values():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 9)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    probs, values = probs.astype(np.float32), rng.normal(size=(2, 9, 4)).astype(np.float32)
    params = LnqParams(4, 20.0, 0.8)
    error = params.fake_quant(probs) - probs
    for given, expected in ((None, error), (values, error @ values)):
        loss = table_loss(probs, given, params.thresholds(), params.table(), float(np.float32(params.scale)))
        np.testing.assert_allclose(loss, np.mean(np.abs(expected.astype(np.float64)) ** 2.4), rtol=1e-3)


def test_thinned_samples_are_whole_rows_with_their_values(monkeypatch):
    monkeypatch.setattr(softmax_table, "_SAMPLE_LIMIT", 200)
    probs = np.arange(6 * 30 * 10, dtype=np.float32).reshape(6, 30, 10)
    values = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((6, 10, 2), np.float32)
    some, their_values = thin_softmax_samples(probs, values)
    assert some.size <= 200 and some.shape[2] == 10
    slices = some[:, 0, 0] // 300
    np.testing.assert_array_equal(their_values[:, 0, 0], slices)
    assert all((row == np.arange(row[0], row[0] + 10)).all() and row[0] % 10 == 0 for row in some.reshape(-1, 10))
