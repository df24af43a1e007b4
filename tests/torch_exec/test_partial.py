"""Quantizing only some sites and weights: the two ends equal the simulation and the float model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.weight.weights import calibrate_weight
from tvm_ahcq.torch_exec.partial import PartialSites
from tvm_ahcq.torch_exec.simulate import SimulatedSites, Sites

CHANNELS = 24
INPUTS = {
    "cag": CagParams(4, (0.11, 0.4, 0.9), (3, 7, 15), tuple(i % 3 for i in range(CHANNELS))),
    "hluq": HluqParams(4, 4, 3, 0.013, -0.17),
    "uniform": UniformParams(4, 0.37, 5),
}
ATTENTION = {f"a.{role}": UniformParams(4, 0.35, 7) for role in "qkv"} | {"a.probs": LnqParams(4, 20.0, 0.7)}


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


X, WEIGHT, BIAS = tensor(3, 10, CHANNELS), tensor(16, CHANNELS), tensor(16)
PICTURE, KERNEL = tensor(2, 5, 6, CHANNELS), tensor(8, CHANNELS, 3, 3)
Q, K, V, REL_H, REL_W = tensor(2, 20, 16), tensor(2, 20, 16), tensor(2, 20, 16), tensor(9, 16), tensor(7, 16)


def everything(sites: Sites, activation: str = "gelu") -> list[torch.Tensor]:
    """Each kind of layer on its quantized input, as the graph calls them."""
    outputs = []
    for kind in INPUTS:
        outputs.append(sites.linear(kind, sites.activation(f"{kind}.input", X, activation), WEIGHT, BIAS))
    outputs.append(sites.linear("left in float", X, WEIGHT, BIAS))
    outputs.append(sites.conv2d("conv", sites.activation("conv.input", PICTURE), KERNEL))
    operands = [sites.activation(f"a.{role}", x) for role, x in zip("qkv", (Q, K, V), strict=True)]
    outputs.append(sites.attention("a", *operands, 0.25, REL_H, REL_W))
    return outputs


@pytest.fixture(scope="module")
def quantizers() -> dict:
    inputs = {f"{kind}.input": params for kind, params in INPUTS.items()}
    return {**inputs, "conv.input": UniformParams(4, 0.3, 8), **ATTENTION}


@pytest.fixture(scope="module")
def weights() -> dict:
    linear = calibrate_weight(WEIGHT.numpy(), 4)
    return {**dict.fromkeys(INPUTS, linear), "conv": calibrate_weight(KERNEL.numpy(), 4)}


def test_with_everything_chosen_it_equals_the_simulation_bit_for_bit(quantizers, weights):
    partial, simulated = PartialSites(quantizers, weights), SimulatedSites(quantizers, weights)
    for got, expected in zip(everything(partial), everything(simulated), strict=True):
        np.testing.assert_array_equal(got.numpy(), expected.numpy())


def test_with_nothing_chosen_it_equals_float_bit_for_bit_or_is_closer():
    expected = everything(Sites())
    for got, reference in zip(everything(PartialSites({}, accumulator=torch.float32)), expected, strict=True):
        np.testing.assert_array_equal(got.numpy(), reference.numpy())
    for got, reference in zip(everything(PartialSites({})), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), reference.numpy(), atol=2e-5)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("accumulator", [torch.float32, torch.float64])
def test_input_alone_and_weight_alone_are_rounded_and_multiplied_in_float(kind, accumulator, quantizers, weights):
    y = F.gelu(X)
    rounded = torch.from_numpy(INPUTS[kind].fake_quant(y.numpy()))
    cases = [
        (PartialSites({f"{kind}.input": INPUTS[kind]}, accumulator=accumulator), rounded, WEIGHT),
        (
            PartialSites({}, {kind: weights[kind]}, accumulator=accumulator),
            y,
            torch.from_numpy(weights[kind].dequantize()),
        ),
    ]
    for sites, x, weight in cases:
        got = sites.linear(kind, sites.activation(f"{kind}.input", X, "gelu"), WEIGHT, BIAS)
        np.testing.assert_allclose(got.numpy(), F.linear(x, weight, BIAS).numpy(), atol=2e-5)


def test_a_convolution_with_only_its_weight_chosen_runs_with_rounded_taps(weights):
    got = PartialSites({}, {"conv": weights["conv"]}).conv2d("conv", PICTURE, KERNEL)
    kernel = torch.from_numpy(weights["conv"].dequantize())
    expected = F.conv2d(PICTURE.permute(0, 3, 1, 2), kernel, padding=1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("chosen", ["q", "k", "v", "probs"])
def test_one_operand_of_an_attention_is_rounded_and_the_rest_is_float(chosen):
    sites = PartialSites({f"a.{chosen}": ATTENTION[f"a.{chosen}"]})
    operands = [sites.activation(f"a.{role}", x) for role, x in zip("qkv", (Q, K, V), strict=True)]
    got = sites.attention("a", *operands, 0.25, None, None)
    values = {"q": Q.numpy(), "k": K.numpy(), "v": V.numpy()}
    if chosen in values:
        values[chosen] = ATTENTION[f"a.{chosen}"].fake_quant(values[chosen])
    q, k, v = (torch.from_numpy(values[role]) for role in "qkv")
    probs = (0.25 * q @ k.transpose(1, 2)).softmax(-1)
    if chosen == "probs":
        probs = torch.from_numpy(ATTENTION["a.probs"].fake_quant(probs.numpy()))
    np.testing.assert_allclose(got.numpy(), (probs @ v).numpy(), atol=1e-5)


def test_a_weight_in_the_shape_of_a_convolution_serves_a_linear_layer():
    pointwise = calibrate_weight(WEIGHT.numpy()[:, :, None, None], 4)
    got = PartialSites({}, {"neck": pointwise}).linear("neck", X, WEIGHT, BIAS)
    expected = F.linear(X, torch.from_numpy(pointwise.dequantize()[:, :, 0, 0]), BIAS)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=2e-5)
