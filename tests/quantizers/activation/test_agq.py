"""The deployed AGQ: thresholds, byte table, calibration, use by the integer attention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.agq import TAUS, AgqParams, calibrate_agq, deployed_loss
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.uniform import calibrate_uniform
from tvm_ahcq.quantizers.core.params import params_from_dict
from tvm_ahcq.quantizers.core.reference import log_attention
from tvm_ahcq.quantizers.published.agq import encode_published, table_published

PARAMS = st.builds(
    AgqParams, st.sampled_from([4, 5, 6, 8]), st.sampled_from(TAUS), st.floats(2**-10, 1, width=32, exclude_min=True)
)


def attention(slices: int = 6, queries: int = 30, keys: int = 49) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(slices, queries, keys)) * np.linspace(1, 5, slices)[:, None, None]
    probs = np.exp(logits)
    values = rng.normal(size=(slices, keys, 16)).astype(np.float32)
    return (probs / probs.sum(-1, keepdims=True)).astype(np.float32), values


@given(PARAMS)
def test_table_is_zero_and_the_powers_in_bytes(params):
    table = params.table()
    assert table.dtype == np.uint8 and table.size == 2**params.bits and table[0] == 0 and table[-1] == 255
    values = table_published(params.bits, params.tau, params.scale, extra=False)[::-1]
    assert values.size == 2**params.bits
    assert np.abs(table * (params.scale / 255) - values).max() <= 0.501 * params.scale / 255


@given(PARAMS)
def test_codes_equal_the_formula_away_from_ties(params):
    # the formula takes 0 for 1e-20, which has a power of its own where they reach that far
    p = np.concatenate([np.linspace(0, 1, 1001)[1:], np.geomspace(1e-7, 1, 1001)]).astype(np.float32)
    tie = (np.abs(p[:, None] / params.thresholds() - 1) < 1e-4).any(1)
    powers = 2**params.bits - 1
    formula = powers - encode_published(p, params.bits, params.tau, params.scale, extra=False).astype(int)
    np.testing.assert_array_equal(params.encode(p)[~tie], formula[~tie])
    assert params.fake_quant(np.zeros(1, np.float32))[0] == 0


@given(PARAMS)
def test_json_round_trip_and_codebook(params):
    assert params_from_dict(params.to_dict()) == params
    (book,) = params.codebooks()
    np.testing.assert_array_equal(book.operands(np.arange(2**params.bits)), params.table())
    assert book.scale == params.operand_scale


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("name", ["lnq_k16", "lnq_k64", "lnq_k256"])
def test_calibration_is_about_as_good_as_deploying_the_published_choice(vectors, name, bits):
    d = vectors(name)
    probs, values = (d[key].reshape(-1, *d[key].shape[2:]) for key in ("attn", "v"))
    ours = calibrate_agq(probs, values, bits)
    tau, scale = d[f"b{bits}_agq_choice"]
    theirs = deployed_loss(probs, values, bits, int(tau), scale)
    assert deployed_loss(probs, values, bits, ours.tau, ours.scale) <= 1.05 * theirs


@pytest.mark.parametrize("bits", [4, 8])
def test_integer_attention_takes_it_unchanged(bits):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 40, 16)).astype(np.float32) * 1.5 for _ in range(3))
    sites = [calibrate_uniform(x, 8) for x in (q, k, v)]
    logits = np.einsum("bqd,bkd->bqk", sites[0].fake_quant(q), sites[1].fake_quant(k)) / 4
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs = (probs / probs.sum(-1, keepdims=True)).astype(np.float32)
    params = calibrate_agq(probs, sites[2].fake_quant(v), bits)
    constants, _, _ = attention_constants(AttentionQuantizers(*sites, params), scale=0.25, head_dim=16)
    codes = [site.encode(x) for site, x in zip(sites, (q, k, v), strict=True)]
    out = log_attention(*codes, constants)
    expected = params.fake_quant(probs) @ sites[2].fake_quant(v)
    # a probability next to a threshold may take the neighbouring code in fixed point
    assert np.mean(np.abs(out - expected) > 0.02) < 0.03
    assert np.corrcoef(out.ravel(), expected.ravel())[0, 1] > 0.998


def test_more_bits_are_better():
    probs, values = attention()
    losses = []
    for bits in (3, 4, 6):
        params = calibrate_agq(probs, values, bits)
        losses.append(deployed_loss(probs, values, bits, params.tau, params.scale))
    assert losses[0] > losses[1] > losses[2]


def test_degenerate_and_wrong_inputs():
    assert calibrate_agq(np.ones((1, 4, 1)), None, 4).fake_quant(np.float32([1.0]))[0] == pytest.approx(1, rel=1e-6)
    assert calibrate_agq(np.zeros((1, 4, 2)), None, 4).scale == 1
    with pytest.raises(ValueError, match=r"\(S, K, d\)"):
        calibrate_agq(np.ones((2, 3, 4)), np.ones((2, 5, 6)), 4)
    with pytest.raises(CalibrationError, match="AGQ"):
        calibrate_agq(np.full((1, 1, 1), np.nan), None, 4)
    with pytest.raises(ValueError, match="tau"):
        AgqParams(4, 0, 1.0)
