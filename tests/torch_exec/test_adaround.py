"""AdaRound against the reference vectors, and what rounding must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tvm_ahcq.quantizers.weight.weights import calibrate_weight, encode_weight
from tvm_ahcq.torch_exec.adaround import alpha_start, hard_codes, rounding, soft_weight


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("name", ["w", "wpos", "wconv"])
def test_start_soft_weight_and_hard_codes(vectors, name, bits):
    d, key = vectors("uniform"), f"b{bits}_{name}"
    w, scale, zero, alpha = tensors(d[name], d[f"{key}_scale"], d[f"{key}_zp"].astype(np.int64), d[f"{key}_alpha"])
    np.testing.assert_allclose(alpha_start(w, scale), d[f"{key}_alpha0"], atol=1e-3)
    np.testing.assert_allclose(soft_weight(w, alpha, scale, zero, bits), d[f"{key}_soft"], atol=1e-5)
    codes = hard_codes(w, alpha, scale, zero, bits)
    assert codes.dtype == torch.uint8
    assert np.mean(codes.numpy() != d[f"{key}_hard_codes"]) <= 1e-3


@pytest.mark.parametrize("bits", [4, 6])
def test_soft_weight_and_gradient_of_alpha(vectors, bits):
    d, key = vectors("train"), f"ada_b{bits}"
    w, scale, zero, alpha = (torch.from_numpy(d[f"{key}_{n}"]) for n in ("W", "scale", "zp", "alpha"))
    alpha.requires_grad_(True)
    soft = soft_weight(w, alpha, scale, zero, bits)
    np.testing.assert_allclose(soft.detach(), d[f"{key}_soft"], atol=1e-5)
    soft.backward(torch.from_numpy(d[f"{key}_upstream"]))
    np.testing.assert_allclose(alpha.grad, d[f"{key}_grad_alpha"], atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 5, 6]))
def test_the_start_is_the_weight_itself_and_hardening_it_rounds_to_nearest(seed, bits):
    w = np.random.default_rng(seed).normal(size=(5, 30)).astype(np.float32)
    quantized = calibrate_weight(w, bits)
    weight, scale, zero = tensors(w, quantized.scale, quantized.zero_point)
    alpha = alpha_start(weight, scale)
    inside = np.abs(w / quantized.scale[:, None]) < 2 ** (bits - 1) - 2
    inside &= (quantized.codes > 1) & (quantized.codes < 2**bits - 2)
    np.testing.assert_allclose(soft_weight(weight, alpha, scale, zero, bits).numpy()[inside], w[inside], atol=1e-5)
    parts = w / quantized.scale[:, None] % 1
    decided = np.abs(parts - 0.5) > 1e-4
    codes = hard_codes(weight, alpha, scale, zero, bits).numpy()
    np.testing.assert_array_equal(codes[decided], quantized.codes[decided])


def test_soft_weight_of_settled_alphas_is_the_hard_weight_and_encodes_to_its_codes():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 40)).astype(np.float32)
    quantized = calibrate_weight(w, 4)
    weight, scale, zero = tensors(w, quantized.scale, quantized.zero_point)
    alpha = torch.from_numpy(rng.choice([-8.0, 8.0], w.shape).astype(np.float32))
    assert set(rounding(alpha).unique().tolist()) == {0.0, 1.0}
    codes = hard_codes(weight, alpha, scale, zero, 4).numpy()
    soft = soft_weight(weight, alpha, scale, zero, 4).numpy()
    np.testing.assert_array_equal(encode_weight(soft, quantized.scale, quantized.zero_point, 4).codes, codes)


def test_weights_of_zeros_stay_zero():
    weight, scale, zero = torch.zeros(2, 3), torch.full((2,), 1e-8), torch.zeros(2)
    alpha = alpha_start(weight, scale)
    assert torch.isfinite(alpha).all()
    assert not hard_codes(weight, alpha, scale, zero, 4).any()
    assert soft_weight(weight, alpha, scale, zero, 4).abs().max() < 1e-9
