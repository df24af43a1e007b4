"""Rules of equalisation on plain arrays: which channels trade scales, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.models.sam.exchanges import exchanges
from tvm_ahcq.quantizers.weight.equalise import (
    Exchange,
    apply_equalisation,
    balance,
    column_magnitude,
    key_biases,
    rescale,
)

D, HEADS = 8, 2
BLOCK, LAYER = "image_encoder.blocks.0", "mask_decoder.transformer.layers.0"
CROSS = f"{LAYER}.cross_attn_token_to_image"


@pytest.fixture
def params() -> dict[str, np.ndarray]:
    """Names and shapes of one encoder block, and of one decoder layer's MLP and attention."""
    rng = np.random.default_rng(0)
    shapes = {
        **{f"{BLOCK}.{norm}.{kind}": (D,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
        f"{BLOCK}.attn.qkv.weight": (3 * D, D),
        f"{BLOCK}.attn.qkv.bias": (3 * D,),
        f"{BLOCK}.attn.proj.weight": (D, D),
        **{f"{BLOCK}.attn.rel_pos_{axis}": (5, D // HEADS) for axis in "hw"},
        f"{BLOCK}.mlp.lin1.weight": (16, D),
        f"{LAYER}.mlp.lin1.weight": (16, D),
        f"{LAYER}.mlp.lin1.bias": (16,),
        f"{LAYER}.mlp.lin2.weight": (D, 16),
        **{f"{CROSS}.{role}_proj.weight": (4, D) for role in "qkv"},
        **{f"{CROSS}.{role}_proj.bias": (4,) for role in "qkv"},
        f"{CROSS}.out_proj.weight": (D, 4),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def place_of(params: dict[str, np.ndarray], name: str) -> Exchange:
    return next(place for place in exchanges(params) if place.name == name)


def test_every_exchange_of_a_block_and_of_the_decoder_is_found(params):
    channels = {place.name: (place.channels, place.heads) for place in exchanges(params)}
    assert channels == {
        f"{BLOCK}.norm1": (D, 1),
        f"{BLOCK}.norm2": (D, 1),
        f"{BLOCK}.attn.qk": (D, HEADS),
        f"{BLOCK}.attn.v": (D, 1),
        f"{LAYER}.mlp.lin1": (16, 1),
        f"{CROSS}.qk": (4, 1),
        f"{CROSS}.v": (4, 1),
    }


def test_keys_alone_have_biases_that_may_be_anything(params):
    assert key_biases(exchanges(params)) == [(f"{BLOCK}.attn.qkv.bias", D, D), (f"{CROSS}.k_proj.bias", 0, 4)]


def test_a_relu_layer_and_its_reader_compute_the_same(params):
    factors = np.random.default_rng(1).lognormal(size=16)
    changed = apply_equalisation(params, {f"{LAYER}.mlp.lin1": factors}, exchanges(params))
    x = np.random.default_rng(2).normal(size=(20, D)).astype(np.float32)
    before, after = (
        np.maximum(x @ p[f"{LAYER}.mlp.lin1.weight"].T + p[f"{LAYER}.mlp.lin1.bias"], 0)
        @ p[f"{LAYER}.mlp.lin2.weight"].T
        for p in (params, changed)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def logits(params: dict[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """Products of queries with keys and with relative positions, of each head."""
    out = x @ params[f"{BLOCK}.attn.qkv.weight"].T + params[f"{BLOCK}.attn.qkv.bias"]
    q, k = (out[:, role * D : (role + 1) * D].reshape(-1, HEADS, D // HEADS) for role in (0, 1))
    tables = [params[f"{BLOCK}.attn.rel_pos_{axis}"] for axis in "hw"]
    return [np.einsum("qhd,khd->hqk", q, k), *(np.einsum("qhd,kd->hqk", q, table) for table in tables)]


def test_queries_trade_with_keys_and_relative_positions(params):
    factors = np.tile(np.random.default_rng(1).lognormal(size=D // HEADS), HEADS)
    changed = apply_equalisation(params, {f"{BLOCK}.attn.qk": factors}, exchanges(params))
    x = np.random.default_rng(2).normal(size=(6, D)).astype(np.float32)
    for after, before in zip(logits(changed, x), logits(params, x), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    values = slice(2 * D, 3 * D)
    np.testing.assert_array_equal(
        changed[f"{BLOCK}.attn.qkv.weight"][values], params[f"{BLOCK}.attn.qkv.weight"][values]
    )


def test_heads_that_share_relative_positions_must_agree(params):
    with pytest.raises(ValueError, match="heads share"):
        rescale(dict(params), place_of(params, f"{BLOCK}.attn.qk"), np.arange(1.0, D + 1))


def test_an_offset_is_taken_from_the_keys_alone(params):
    name, first, count = key_biases(exchanges(params))[0]
    changed = apply_equalisation(params, {name: np.ones(count)}, exchanges(params))
    expected = params[name].copy()
    expected[first : first + count] -= 1
    np.testing.assert_array_equal(changed[name], expected)


def test_signs_offsets_and_factors_of_the_same_keys_add_up_in_order(params):
    signs, offset, factors = np.float64([1, -1, -1, 1]), np.float64([1, 2, 3, 4]), np.float64([0.5, 1, 2, 4])
    bias = f"{CROSS}.k_proj.bias"
    changed = apply_equalisation(
        params, {f"{CROSS}.signs": signs, bias: offset, f"{CROSS}.qk": factors}, exchanges(params)
    )
    np.testing.assert_allclose(changed[bias], (params[bias] * signs - offset) * factors, rtol=1e-5)
    query = f"{CROSS}.q_proj.weight"
    np.testing.assert_allclose(changed[query], params[query] * (signs / factors)[:, None], rtol=1e-6)


def test_a_sign_of_zero_erases_a_channel_of_both_sides(params):
    changed = apply_equalisation(params, {f"{CROSS}.signs": np.float64([1, 0, -1, 1])}, exchanges(params))
    for role in "qk":
        weight = changed[f"{CROSS}.{role}_proj.weight"]
        assert np.isfinite(weight).all() and not weight[1].any() and weight[0].any()


def test_the_given_parameters_stay_and_unchanged_ones_are_shared(params):
    before = {name: array.copy() for name, array in params.items()}
    changed = apply_equalisation(
        params, {f"{BLOCK}.norm1": np.full(D, 2.0), f"{CROSS}.k_proj.bias": np.ones(4)}, exchanges(params)
    )
    touched = {name for name in params if changed[name] is not params[name]}
    assert touched == {
        f"{BLOCK}.norm1.weight",
        f"{BLOCK}.norm1.bias",
        f"{BLOCK}.attn.qkv.weight",
        f"{CROSS}.k_proj.bias",
    }
    for name, array in before.items():
        np.testing.assert_array_equal(params[name], array)
        assert changed[name].dtype == np.float32


def test_changes_of_another_model_are_refused(params):
    with pytest.raises(QuantTableError, match="another model"):
        apply_equalisation(params, {"image_encoder.blocks.7.norm1": np.ones(D)}, exchanges(params))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_balanced_channels_ask_for_no_more(share):
    produced, read = np.random.default_rng(0).lognormal(sigma=2, size=(2, 30))
    factors = balance(produced, read, share)
    assert np.prod(factors) == pytest.approx(1)
    np.testing.assert_allclose(balance(produced / factors, read * factors, share), 1, rtol=1e-9)
    if share == 1:
        assert np.ptp(produced / factors) < 1e-9
    if share == 0:
        assert np.ptp(read * factors) < 1e-9


def test_dead_channels_keep_their_scale_and_do_not_move_the_others():
    produced, read = np.float64([0, 2, 8, 3]), np.float64([1, 2, 2, 0])
    factors = balance(produced, read)
    assert factors[0] == factors[3] == 1
    np.testing.assert_allclose(factors[1:3], balance(produced[1:3], read[1:3]))
    np.testing.assert_array_equal(balance(np.zeros(3), np.ones(3)), 1)


def test_factors_are_bounded():
    factors = balance(np.float64([1e-30, 1e30]), np.ones(2))
    assert np.isfinite(np.float32(factors)).all() and (factors > 0).all()


def test_columns_are_measured_over_all_readers_and_taps():
    linear, conv = np.float32([[1, -5], [2, 3]]), np.zeros((2, 2, 3, 3), np.float32)
    conv[1, 0, 2, 1] = -7
    np.testing.assert_array_equal(column_magnitude([linear, conv]), [7, 5])
