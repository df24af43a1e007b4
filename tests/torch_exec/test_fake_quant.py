"""Fast simulation against the exact one."""

from __future__ import annotations

import numpy as np
import torch

from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.weight.weights import calibrate_weight
from tvm_ahcq.torch_exec.fake_quant import FakeQuantSites
from tvm_ahcq.torch_exec.simulate import SimulatedSites

QUANTIZERS = {
    "l.input": UniformParams(4, 0.3, 7),
    "h.input": HluqParams(4, 4, 3, 0.05, -0.17),
    **{f"a.{role}": UniformParams(4, 0.4, 8) for role in "qkv"},
    "a.probs": LnqParams(4, 20.0, 0.6),
}


def test_layers_agree_to_the_last_places_of_float32():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(50, 32)).astype(np.float32))
    weight = rng.normal(size=(12, 32)).astype(np.float32)
    bias = torch.from_numpy(rng.normal(size=12).astype(np.float32))
    quantized = calibrate_weight(weight, 4)
    for name, activation in (("l", "identity"), ("h", "gelu")):
        exact = SimulatedSites(QUANTIZERS, {name: quantized})
        fast = FakeQuantSites(QUANTIZERS, {name: (torch.from_numpy(quantized.dequantize()), None)})
        values = exact.activation(f"{name}.input", x, activation)
        assert torch.equal(values, fast.activation(f"{name}.input", x, activation))
        results = [sites.linear(name, values, torch.from_numpy(weight), bias) for sites in (exact, fast)]
        torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_a_given_bias_takes_the_place_of_the_models():
    x, weight, bias = torch.ones(2, 3), torch.ones(4, 3), torch.zeros(4)
    sites = FakeQuantSites({}, {"l": (2 * weight, bias + 5)})
    assert (sites.linear("l", x, weight, bias) == 11).all() and (sites.linear("m", x, weight, bias) == 3).all()


def test_attention_agrees_but_for_fixed_point_logits():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 20, 16, generator=generator) for _ in range(3))
    exact, fast = SimulatedSites(QUANTIZERS), FakeQuantSites(QUANTIZERS)
    operands = [exact.activation(f"a.{role}", x) for role, x in zip("qkv", (q, k, v), strict=True)]
    results = [sites.attention("a", *operands, 0.25, None, None) for sites in (exact, fast)]
    assert (results[0] - results[1]).abs().mean() < 0.01 * results[0].abs().mean()
