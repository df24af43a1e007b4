"""The published LNQ against the reference vectors."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.activation.lnq import ALPHAS
from tvm_ahcq.quantizers.published.lnq import encode_published, observer_loss, search_published, table_published

CASES = [(name, bits, tag) for name in ("lnq_k16", "lnq_k64", "lnq_k256") for bits in (4, 6) for tag in ("v", "nov")]


@pytest.mark.parametrize(("name", "bits", "tag"), CASES)
def test_codes_tables_and_losses_for_the_given_choice(vectors, name, bits, tag):
    d = vectors(name)
    _, alpha, scale = d[f"b{bits}_{tag}_choice"]
    for steps, suffix, row, rtol in ((2**bits, "", 0, 1e-5), (2**bits - 1, "_obs", 1, 1e-4)):
        codes = encode_published(d["attn"][-1], alpha, scale, steps)
        assert np.mean(codes != d[f"b{bits}_{tag}_codes{suffix}"]) <= 2e-3
        atol = 1e-4 * scale if alpha == 0.001 else 0
        table = d[f"b{bits}_{tag}_table{suffix}"]
        np.testing.assert_allclose(table_published(alpha, scale, steps), table, rtol=rtol, atol=atol)
        loss = observer_loss(d["attn"][-1], d["v"][-1], alpha, scale, steps)
        np.testing.assert_allclose(loss, d[f"b{bits}_{tag}_err_last"][row], rtol=1e-2)


@pytest.mark.parametrize(("name", "bits", "tag"), CASES)
def test_observer_loss_without_any_optimiser(vectors, name, bits, tag):
    d = vectors(name)
    values = d["v"][0] if tag == "v" else None
    scales = d["lossgrid_fracs"] * d["attn"][0].max()
    ours = np.array([[observer_loss(d["attn"][0], values, a, s, 2**bits - 1) for s in scales] for a in ALPHAS])
    reference = d[f"b{bits}_{tag}_lossgrid"]
    np.testing.assert_allclose(ours[1:], reference[1:], rtol=1e-2)
    np.testing.assert_allclose(ours[0], reference[0], rtol=1e-1)


@pytest.mark.parametrize(("name", "bits", "tag"), CASES)
def test_search_reproduces_choice(vectors, name, bits, tag):
    d = vectors(name)
    scales, errors, chosen = search_published(d["attn"], d["v"] if tag == "v" else None, bits)
    np.testing.assert_array_equal(ALPHAS, d["alphas"])
    index, alpha, scale = d[f"b{bits}_{tag}_choice"]
    np.testing.assert_allclose(errors, d[f"b{bits}_{tag}_errors"], rtol=5e-2)
    np.testing.assert_allclose(errors[int(index)], d[f"b{bits}_{tag}_errors"][int(index)], rtol=1e-2)
    np.testing.assert_allclose(scales[int(index)], scale, rtol=1e-3)
    np.testing.assert_allclose(scales, d[f"b{bits}_{tag}_scales"], rtol=5e-2)
    if d[f"b{bits}_{tag}_margin"] > 0.05:
        assert ALPHAS[chosen] == alpha
