"""Sites with gradients: what is learned gets one, and hard results equal the quantizers they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.quantizers.activation.agq import AgqParams
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.published.hluq import HluqPublishedParams
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight, calibrate_weight
from tvm_ahcq.torch_exec.trainable import LearnedWeight, TrainableSites

LEARNED = {
    "uniform": UniformParams(4, 0.3, 7),
    "cag": CagParams(4, (0.1, 0.5), (3, 8), (0, 1, 1, 0, 1, 0)),
    "hluq": HluqParams(4, 4, 3, 0.05, -0.17),
}
FIXED = HluqPublishedParams(4, -0.17, 0.6, 0.25, 0.25)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def weight(*shape: int, bits: int = 4) -> tuple[torch.Tensor, QuantizedWeight]:
    target = normal(*shape)
    return target, calibrate_weight(target.numpy(), bits)


@pytest.mark.parametrize("shape", [(6, 20), (6, 4, 3, 3)])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_rounding_starts_at_the_codes_it_had(shape, bits):
    target, quantized = weight(*shape, bits=bits)
    moved = np.random.default_rng(0).integers(-2, 3, quantized.codes.shape)  # as error compensation moves them
    codes = np.clip(quantized.codes.astype(int) + moved, 0, 2**bits - 1).astype(np.uint8)
    started = QuantizedWeight(codes, quantized.scale, quantized.zero_point, bits)
    hard = LearnedWeight.of(started, target).hard()
    np.testing.assert_array_equal(hard.codes, codes)
    assert hard.codes.dtype == np.uint8 and hard.bits == bits
    np.testing.assert_array_equal(hard.scale, quantized.scale)


def test_a_soft_weight_lies_between_the_code_it_had_and_a_neighbour():
    target, quantized = weight(6, 20)
    soft = LearnedWeight.of(quantized, target).soft().detach()
    distance = (soft - torch.from_numpy(quantized.dequantize())).abs() / torch.from_numpy(quantized.scale)[:, None]
    assert distance.max() <= 0.5 and (distance > 0.1).float().mean() > 0.8


def test_learned_rounding_moves_by_one_code_at_most_and_stays_hard():
    target, quantized = weight(6, 20)
    learned = LearnedWeight.of(quantized, target)
    with torch.no_grad():
        learned.alpha.mul_(-10)
    moved = learned.hard().codes.astype(int) - quantized.codes.astype(int)
    assert np.abs(moved).max() == 1
    with torch.no_grad():
        torch.testing.assert_close(learned.soft(), torch.from_numpy(learned.hard().dequantize()))


def test_gradients_reach_the_rounding_of_layers_and_convolutions():
    for shape, x in (((6, 8), normal(10, 8)), ((6, 8, 3, 3), normal(1, 5, 5, 8))):
        target, quantized = weight(*shape)
        learned = LearnedWeight.of(quantized, target)
        sites = TrainableSites({}, {"l": (target, None)}, {"l": learned}, ())
        y = sites.linear("l", x, target, torch.zeros(6)) if x.ndim == 2 else sites.conv2d("l", x, target)
        y.square().mean().backward()
        assert (learned.alpha.grad != 0).float().mean() > 0.8


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("activation", ["identity", "gelu", "relu"])
def test_gradients_reach_scales_and_inputs(name, activation):
    sites = TrainableSites(LEARNED, {}, {}, (name,))
    x = normal(50, 6).requires_grad_()
    (sites.activation(name, x, activation) * normal(50, 6).cos()).sum().backward()
    assert (sites.scales[name].grad != 0).all() and (x.grad != 0).any()


def test_a_site_without_a_learned_scale_passes_gradients_straight_through():
    sites = TrainableSites({"s": FIXED}, {}, {}, ("s",))
    x = normal(50, 6).requires_grad_()
    y = sites.activation("s", x, "relu")
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), (x > 0).numpy())
    np.testing.assert_allclose(y.detach().numpy(), FIXED.fake_quant(x.detach().relu().numpy()), atol=1e-6)


@pytest.mark.parametrize("params", [LnqParams(4, 20.0, 0.6), AgqParams(4, 2, 0.6), UniformParams(4, 1 / 15, 0)])
def test_probabilities_are_rounded_and_pass_gradients(params):
    sites = TrainableSites({"a.probs": params}, {}, {}, ("a.probs",))
    probs = normal(2, 5, 7).softmax(-1).requires_grad_()
    rounded = sites.probabilities("a", probs, normal(2, 7, 3))
    rounded.sum().backward()
    np.testing.assert_allclose(rounded.detach().numpy(), params.fake_quant(probs.detach().numpy()), atol=1e-6)
    np.testing.assert_array_equal(probs.grad, 1)


@pytest.mark.parametrize("factor", [1.0, 0.83, 1.7, -1.2])
@pytest.mark.parametrize("name", LEARNED)
def test_trained_quantizers_round_as_the_sites_do(name, factor):
    sites, x = TrainableSites(LEARNED, {}, {}, (name,)), 2 * normal(400, 6)
    with torch.no_grad():
        sites.scales[name].mul_(factor)
        value = sites.activation(name, x).numpy()
    np.testing.assert_array_equal(value, sites.trained(name).fake_quant(x.numpy()))


@pytest.mark.parametrize("name", LEARNED)
def test_a_scale_that_was_learned_away_still_makes_a_quantizer(name):
    sites = TrainableSites(LEARNED, {}, {}, (name,))
    with torch.no_grad():
        sites.scales[name].zero_()
    assert np.isfinite(sites.trained(name).fake_quant(normal(20, 6).numpy())).all()


def test_dropping_leaves_elements_in_float_while_training():
    x = normal(400, 6)
    plain, dropping = (TrainableSites(LEARNED, {}, {}, ("uniform",), drop) for drop in (0.0, 0.5))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rounded, mixed = plain.activation("uniform", x), dropping.activation("uniform", x)
    dropped = mixed == x
    assert 0.4 < dropped.float().mean() < 0.6
    assert torch.equal(mixed[~dropped], rounded[~dropped])


def test_other_sites_and_layers_are_as_ever():
    target, _ = weight(6, 6)
    sites = TrainableSites(LEARNED, {"l": (2 * target, None)}, {}, ())
    x = normal(50, 6)
    with torch.no_grad():
        values = sites.activation("uniform", x).numpy()
        np.testing.assert_allclose(values, LEARNED["uniform"].fake_quant(x.numpy()), atol=1e-6)
        torch.testing.assert_close(sites.linear("l", x, target, torch.zeros(6)), 2 * x @ target.T)
