"""The integer reference against exact arithmetic and float attention."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.reference import (
    EXP_BITS,
    FRACTION_BITS,
    attention_logit_scale,
    encode_affine,
    exp2_fixed,
    fma32,
    grouped_linear,
    im2col,
    log2_fixed,
    log_attention,
    rounding_shift,
)

FLOAT32 = st.floats(-1e4, 1e4, width=32)


def rounded_to_float32(exact: Fraction) -> np.float32:
    """Nearest float32, half to even, by exact comparison with the neighbours of an approximation."""
    near = np.float32(float(exact))
    candidates = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    distance = [abs(Fraction(float(c)) - exact) for c in candidates]
    best = [c for c, d in zip(candidates, distance, strict=True) if d == min(distance)]
    return best[0] if len(best) == 1 else next(c for c in best if c.view(np.int32) % 2 == 0)


@given(FLOAT32, FLOAT32, FLOAT32)
def test_fused_multiply_add_rounds_once(a, b, c):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0 or abs(exact) > Fraction(2) ** -100:  # no subnormal results
        assert fma32(np.float32(a), np.float32(b), np.float32(c)) == rounded_to_float32(exact)


def test_fused_multiply_add_does_not_round_twice():
    # the sum lies 2**-54 below the midpoint of two float32 numbers; float64 rounds it to the midpoint
    a, b, c = np.float32(2**-24 * (1 + 2**-15)), np.float32(1 - 2**-15), np.float32(1 + 2**-23)
    assert np.float32(np.float64(a) * np.float64(b) + np.float64(c)) != c
    assert fma32(a, b, c) == c


@given(st.integers(-(2**30), 2**30), st.integers(0, 20))
def test_rounding_shift_rounds_half_up(x, shift):
    raised = Fraction(x, 2**shift) + Fraction(1, 2)
    assert rounding_shift(np.int64(x), shift) == raised.numerator // raised.denominator


def test_power_of_two_is_accurate_and_exact_at_whole_numbers():
    x = np.arange(12 << FRACTION_BITS)
    ours = exp2_fixed(x) / 2**EXP_BITS
    exact = 2.0 ** (-x / 2**FRACTION_BITS)
    # besides the cubic's error, three truncations and the shift's
    assert np.abs(ours - exact).max() <= 1.5e-4 + 2.0**-EXP_BITS
    assert (np.abs(ours / exact - 1) <= 1.6e-4 + 2.0**-EXP_BITS / exact).all()
    whole = np.arange(EXP_BITS + 1)
    np.testing.assert_array_equal(exp2_fixed(whole << FRACTION_BITS), 2**EXP_BITS >> whole)
    assert (np.diff(exp2_fixed(x)) <= 0).all()


@given(st.integers(2**EXP_BITS, 2**31 - 1))
def test_logarithm_is_the_floor(total):
    units = int(log2_fixed(np.array([total]))[0])
    # 2**(units / 1024) <= total / 2**18 < 2**((units + 1) / 1024), in integers
    power, scale = total**1024, 2 ** (EXP_BITS * 1024)
    assert 2**units * scale <= power < 2 ** (units + 1) * scale


def test_grouped_product_is_that_of_the_values():
    rng = np.random.default_rng(0)
    params = CagParams(4, (0.1, 0.25), (3, 9), (0, 1, 1, 0, 1))
    x, bias = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    weight, weight_scale = rng.integers(-15, 16, (3, 5)), np.float32([0.5, 0.2, 0.1])
    index = np.array([0, 3, -1, 1, 2, 4], np.int32)
    zero_points = np.array(params.zero_points)
    codes = encode_affine(x, index, (3, 3), np.float32(params.scales), zero_points, 4)
    assert (codes[:, 2] == 0).all()
    packed = np.where(index >= 0, weight[:, np.maximum(index, 0)], 0)
    sums = np.stack([packed[:, :3].sum(1), packed[:, 3:].sum(1)])
    y = grouped_linear(
        codes,
        packed,
        (3, 3),
        np.float32(params.scales)[:, None] * weight_scale,
        -zero_points[:, None] * sums,
        bias,
    )
    expected = params.fake_quant(x) @ (weight * weight_scale[:, None]).T + bias
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_patches_multiply_as_a_convolution(kernel):
    rng = np.random.default_rng(0)
    codes, weight = rng.integers(0, 16, (2, 5, 4, 3)).astype(np.uint8), rng.integers(-7, 8, (6, 3, kernel, kernel))
    patches = im2col(codes, kernel, zero_point=5).astype(np.int64) - 5
    columns = weight.transpose(0, 2, 3, 1).reshape(6, -1)
    ours = patches @ columns.T
    expected = np.zeros((2, 5, 4, 6), np.int64)
    for b, y, x, dy, dx in np.ndindex(2, 5, 4, kernel, kernel):
        row, column = y + dy - kernel // 2, x + dx - kernel // 2
        if 0 <= row < 5 and 0 <= column < 4:
            expected[b, y, x] += weight[:, :, dy, dx] @ (codes[b, row, column].astype(np.int64) - 5)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("probs", [LnqParams(8, 20.0, 1.0), RowRelativeParams(8, 20.0)], ids=["lnq", "row_relative"])
@pytest.mark.parametrize("grid", [None, (3, 5)])
def test_log_attention_is_close_to_float_attention(grid, probs):
    rng = np.random.default_rng(1)
    tokens, channels = 15, 8
    site = UniformParams(8, 0.03, 120)
    codes = [site.encode(rng.normal(size=(2, tokens, channels)).astype(np.float32)) for _ in range(3)]
    q, k, v = (site.decode(c) for c in codes)
    logits = q @ k.transpose(0, 2, 1) * 0.3
    tables = {}
    if grid is not None:
        height, width = grid
        rel_h, rel_w = (rng.normal(size=(2 * n - 1, channels)).astype(np.float32) * 0.3 for n in grid)
        tables = {"rel_h": rel_h, "rel_w": rel_w}
        for i, j in np.ndindex(tokens, tokens):
            (y, x), (key_y, key_x) = divmod(i, width), divmod(j, width)
            relative = rel_h[y - key_y + height - 1] + rel_w[x - key_x + width - 1]
            logits[:, i, j] += q[:, i] @ relative
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ v
    constants, *int8_tables = attention_constants(
        AttentionQuantizers(site, site, site, probs), scale=0.3, head_dim=channels, **tables
    )
    ours = log_attention(*codes, constants, *int8_tables)
    assert np.abs(ours - expected).max() < 0.03
    places = np.array([0, 4, 13])
    some = log_attention(codes[0][:, places], *codes[1:], constants, *int8_tables, places=places)
    np.testing.assert_array_equal(some, ours[:, places])


def test_row_relative_codes_of_28736_keys_stay_close_to_float_attention():
    """As many keys as the memory of a video model has; LNQ's sums would leave int32."""
    rng, keys = np.random.default_rng(0), 28736
    site = UniformParams(8, 0.03, 120)
    q, k, v = (site.encode(rng.normal(size=(1, n, 16)).astype(np.float32)) for n in (8, keys, keys))
    constants, _, _ = attention_constants(
        AttentionQuantizers(site, site, site, RowRelativeParams(4, 100.0)), scale=0.25, head_dim=16
    )
    logits = site.decode(q)[0] @ site.decode(k)[0].T * 0.25
    weights = np.exp(logits - logits.max(1, keepdims=True))
    exact = weights / weights.sum(1, keepdims=True) @ site.decode(v)[0]
    assert np.abs(log_attention(q, k, v, constants)[0] - exact).max() < 0.01


@given(st.integers(1, 2**24), st.floats(1e-6, 1.0), st.integers(0, 2**20), st.floats(1e-6, 1.0))
def test_logits_stay_within_int32(bound, unit, rel_bound, rel_unit):
    assume(bound * unit + 2 * rel_bound * rel_unit <= 2**17)  # the most that the least shift holds
    scale = attention_logit_scale((bound, unit), (rel_bound, rel_unit, rel_unit))
    total = (rounding_shift(bound, scale["qk_shift"])) * scale["qk_multiplier"]
    total += rounding_shift(rel_bound, scale["rel_shift"]) * (scale["rel_h_multiplier"] + scale["rel_w_multiplier"])
    assert total + 2 ** (scale["shift"] - 1) < 2**31
