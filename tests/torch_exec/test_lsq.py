"""Learned scales: published values and gradients, equality with the parameter classes, finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.quantizers.activation.cag import calibrate_cag
from tvm_ahcq.quantizers.activation.hluq import calibrate_hluq, table_boundaries
from tvm_ahcq.quantizers.activation.uniform import calibrate_uniform
from tvm_ahcq.torch_exec.lsq import gradient_factor, grouped_lsq, table_lsq, uniform_lsq


def leaf(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32)).requires_grad_(True)


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_t(4, shape).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 6])
def test_published_gradients_of_one_scale(vectors, bits):
    d, key = vectors("train"), f"lsq_b{bits}"
    x, scale = leaf(d["x"]), leaf(d[f"{key}_params"][:1])
    out = uniform_lsq(x, scale, int(d[f"{key}_params"][1]), bits)
    out.backward(torch.from_numpy(d["upstream"]))
    np.testing.assert_allclose(out.detach(), d[f"{key}_out"], atol=1e-5)
    np.testing.assert_allclose(x.grad, d[f"{key}_grad_x"], atol=1e-5)
    np.testing.assert_allclose(scale.grad, d[f"{key}_grad_scale"], rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 6])
def test_published_gradients_of_group_scales(vectors, bits):
    d, key = vectors("train"), f"grp_b{bits}"
    x, scale = leaf(d["x"]), leaf(d[f"{key}_scale"])
    group_of = torch.from_numpy(d[f"{key}_labels"].astype(np.int64))
    out = grouped_lsq(x, scale, torch.from_numpy(d[f"{key}_zp"]), group_of, bits)
    out.backward(torch.from_numpy(d["upstream"]))
    np.testing.assert_allclose(out.detach(), d[f"{key}_out"], atol=1e-5)
    np.testing.assert_allclose(x.grad, d[f"{key}_grad_x"], atol=1e-5)
    np.testing.assert_allclose(scale.grad, d[f"{key}_grad_scale"], rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_values_are_those_of_the_parameter_classes(bits):
    x = samples(3, 20, 16) * np.exp(np.arange(16, dtype=np.float32) / 4)
    uniform, cag = calibrate_uniform(x, bits), calibrate_cag(x, bits)
    ours = uniform_lsq(torch.from_numpy(x), torch.tensor(uniform.scale), uniform.zero_point, bits)
    np.testing.assert_array_equal(ours, uniform.fake_quant(x))
    group_of = torch.tensor(cag.group_of)
    scales, zeros = torch.tensor(cag.scales), torch.tensor(cag.zero_points)
    np.testing.assert_array_equal(grouped_lsq(torch.from_numpy(x), scales, zeros, group_of, bits), cag.fake_quant(x))
    positive = np.abs(x)
    hluq = calibrate_hluq(positive, bits)
    boundaries = torch.from_numpy(table_boundaries(bits, hluq.log_levels, hluq.step))
    table = torch.from_numpy(hluq.table())
    ours = table_lsq(torch.from_numpy(positive), torch.tensor(hluq.delta), hluq.offset, table, boundaries)
    np.testing.assert_allclose(ours, hluq.fake_quant(positive), rtol=1e-6)


def test_table_gradient_is_the_rounding_error_inside_and_the_top_entry_outside():
    table, boundaries = torch.tensor([0.0, 1, 2, 4]), torch.tensor([0.5, 1.5, 3.0])
    x, delta = leaf([0.2, 1.3, 3.1, 9.0, -1.0]), leaf([0.5])
    out = table_lsq(x, delta, 0.1, table, boundaries)
    np.testing.assert_allclose(out.detach(), [0.1, 1.1, 2.1, 2.1, 0.1], rtol=1e-6)
    out.backward(torch.ones(5))
    np.testing.assert_array_equal(x.grad, [1, 1, 0, 0, 0])
    expected = (0 - 0.2) + (2 - 2.4) + 4 + 4 + 0
    np.testing.assert_allclose(delta.grad, [expected * (5 * 4) ** -0.5], rtol=1e-5)


def test_learning_the_scale_recovers_a_good_one():
    x = torch.from_numpy(samples(2000))
    best = calibrate_uniform(x.numpy(), 4)
    scale = leaf([best.scale * 2.5])
    optimizer = torch.optim.Adam([scale], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (uniform_lsq(x, scale, best.zero_point, 4) - x).square().sum().backward()
        optimizer.step()
    assert 0.8 < scale.item() / best.scale < 1.25


def test_a_scale_that_learns_through_zero_stays_usable():
    scale = leaf([-0.5])
    out = uniform_lsq(torch.tensor([1.0, -1.0]), scale, 8, 4)
    np.testing.assert_array_equal(out.detach(), [1, -1])
    assert torch.isfinite(uniform_lsq(torch.ones(3), torch.zeros(1), 8, 4)).all()


def test_constant_and_zero_activations_have_finite_gradients():
    for value in (0.0, 3.0):
        x, scale = torch.full((4, 6), value), leaf([0.1, 1.0])
        group_of = torch.tensor([0, 0, 0, 1, 1, 1])
        grouped_lsq(x, scale, torch.tensor([0, 8]), group_of, 4).sum().backward()
        assert torch.isfinite(scale.grad).all()


def test_gradient_factor():
    assert gradient_factor(9, 4) == pytest.approx((9 * 15) ** -0.5)
