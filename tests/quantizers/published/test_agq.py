"""The published AGQ against the reference vectors."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.activation.agq import TAUS
from tvm_ahcq.quantizers.published.agq import encode_published, observer_loss, search_published, table_published

CASES = [(name, bits) for name in ("lnq_k16", "lnq_k64", "lnq_k256") for bits in (4, 6)]


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_codes_table_and_loss_for_the_given_choice(vectors, name, bits):
    d, key = vectors(name), f"b{bits}_agq"
    tau, scale = int(d[f"{key}_choice"][0]), d[f"{key}_choice"][1]
    codes = encode_published(d["attn"][-1], bits, tau, scale)
    assert codes.dtype == np.uint8
    assert np.mean(codes != d[f"{key}_codes"]) <= 2e-3
    np.testing.assert_allclose(table_published(bits, tau, scale), d[f"{key}_table"], rtol=1e-5)
    loss = observer_loss(d["attn"][-1], d["v"][-1], bits, tau, scale)
    np.testing.assert_allclose(loss, d[f"{key}_err_last"], rtol=2e-2)


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_search_reproduces_the_choice(vectors, name, bits):
    d, key = vectors(name), f"b{bits}_agq"
    scales, errors, chosen = search_published(d["attn"], d["v"], bits)
    np.testing.assert_allclose(errors, d[f"{key}_errors"], rtol=5e-2)
    assert TAUS[chosen] == d[f"{key}_choice"][0]
    np.testing.assert_allclose(scales[chosen], d[f"{key}_choice"][1], rtol=1e-2)
    np.testing.assert_allclose(scales[chosen], d[f"{key}_scales"][chosen], rtol=1e-2)


def test_the_extra_value_can_be_dropped():
    table = table_published(4, 2, 0.8, extra=False)
    np.testing.assert_array_equal(table[:-1], table_published(4, 2, 0.8)[:15])
    assert table.size == 16 and encode_published(np.zeros(1), 4, 2, 0.8, extra=False)[0] == 15
    assert encode_published(np.zeros(1), 8, 4, 0.8)[0] == 256
