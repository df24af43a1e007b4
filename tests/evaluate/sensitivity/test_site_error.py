"""Errors of sites and layers against numpy, and values that leave nothing to measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.evaluate.sensitivity.site_error import ErrorSites, decibel, share
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams, calibrate_uniform
from tvm_ahcq.quantizers.weight.weights import calibrate_weight

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 20, 12)).astype(np.float32)
WEIGHT, BIAS = RNG.normal(size=(8, 12)).astype(np.float32), RNG.normal(size=8).astype(np.float32)
QUANTIZED = calibrate_weight(WEIGHT, 4)
QUANTIZERS = {
    "uniform": UniformParams(4, 0.37, 5),
    "cag": CagParams(4, (0.11, 0.4, 0.9), (3, 7, 15), tuple(i % 3 for i in range(12))),
    "hluq": HluqParams(4, 4, 3, 0.013, -0.17),
}


def run(sites: ErrorSites, x: np.ndarray = X, activation: str = "identity") -> np.ndarray:
    sites.function = "encode_image"
    value = sites.activation("lin.input", torch.from_numpy(x), activation)
    return sites.linear("lin", value, torch.from_numpy(WEIGHT), torch.from_numpy(BIAS)).numpy()


def power(x: np.ndarray) -> float:
    return float(np.square(x.astype(np.float64)).sum())


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_errors_of_a_linear_layer_equal_numpy(kind):
    params = QUANTIZERS[kind]
    sites = ErrorSites({"lin.input": params}, {"lin": QUANTIZED}, {})
    for part in (X[:1], X[1:]):
        np.testing.assert_allclose(run(sites, part), part @ WEIGHT.T + BIAS, atol=1e-5)  # the graph stays in float
    (site,), (layer,) = sites.sites(), sites.layers()
    rounded = params.fake_quant(X)
    assert site.sqnr == pytest.approx(10 * np.log10(power(X) / power(rounded - X)), abs=1e-4)
    assert (site.low, site.high, site.layer) == (X.min(), X.max(), "lin")
    error = rounded.astype(np.float64) @ QUANTIZED.dequantize().astype(np.float64).T - X.astype(np.float64) @ WEIGHT.T
    assert layer.error == pytest.approx(power(error) / power(X @ WEIGHT.T), rel=1e-3)
    assert (layer.name, layer.op, layer.function, layer.sites) == ("lin", "linear", "encode_image", ("lin.input",))


def test_channels_are_told_apart_where_the_quantizer_does():
    sites = ErrorSites({"lin.input": QUANTIZERS["cag"]}, {"lin": QUANTIZED}, {})
    run(sites, X[:1])
    run(sites, X[1:])
    (site,) = sites.sites()
    np.testing.assert_array_equal(site.channel_low, X.reshape(-1, 12).min(0))
    np.testing.assert_array_equal(site.channel_high, X.reshape(-1, 12).max(0))
    assert len(site.histograms) == 3
    group = X[..., np.asarray(QUANTIZERS["cag"].group_of) == 1]
    assert site.histograms[1].edges[0] == group.min() and site.histograms[1].edges[-1] == group.max()


def test_a_bias_that_was_changed_with_the_weight_counts_as_error():
    shifted = BIAS + 1
    errors = []
    for biases in ({}, {"lin": shifted}):
        sites = ErrorSites({"lin.input": UniformParams(8, 0.05, 128)}, {"lin": QUANTIZED}, biases)
        run(sites)
        errors.append(sites.layers()[0].error)
    assert errors[1] - errors[0] == pytest.approx(X[..., 0].size * 8 / power(X @ WEIGHT.T), rel=0.2)


def test_attention_is_compared_with_the_float_one_and_probabilities_with_theirs():
    q, k, v = (torch.from_numpy(RNG.normal(size=(2, 20, 16)).astype(np.float32)) for _ in range(3))
    for bits, most in ((4, 0.2), (8, 0.01)):
        quantizers = {f"a.{r}": UniformParams(bits, 5.5 / (2**bits - 1), 2 ** (bits - 1)) for r in "qkv"}
        quantizers["a.probs"] = LnqParams(bits, 20.0, 0.7)
        sites = ErrorSites(quantizers, {}, {})
        sites.function = "decode"
        operands = [sites.activation(f"a.{r}", x) for r, x in zip("qkv", (q, k, v), strict=True)]
        sites.attention("a", *operands, 0.25, None, None)
        found = {site.name: site for site in sites.sites()}
        probs = (0.25 * q @ k.transpose(1, 2)).softmax(-1).numpy()
        expected = decibel(power(probs), power(quantizers["a.probs"].fake_quant(probs) - probs))
        assert found["a.probs"].sqnr == pytest.approx(expected, abs=0.01)
        assert found["a.probs"].histograms[0].log and set(found) == set(quantizers)
        (layer,) = sites.layers()
        assert layer.op == "attention" and 0 < layer.error < most


@pytest.mark.parametrize("constant", [0.0, 3.5, -1e-20])
def test_constant_activations_are_measured(constant):
    x = np.full_like(X, constant)
    params = calibrate_uniform(x, 4)
    sites = ErrorSites({"lin.input": params}, {"lin": QUANTIZED}, {})
    run(sites, x)
    (site,), (layer,) = sites.sites(), sites.layers()
    assert not np.isnan(site.sqnr) and not np.isnan(layer.error) and site.low == site.high
    if constant == 0:
        assert (site.sqnr, layer.error) == (float("inf"), 0.0)
    assert site.histograms[0].shares.max() == 1


def test_values_that_are_not_finite_are_refused_by_name():
    x = X.copy()
    x[1, 2, 3] = np.nan
    with pytest.raises(CalibrationError, match=r"lin\.input .*not finite"):
        run(ErrorSites({"lin.input": QUANTIZERS["uniform"]}, {"lin": QUANTIZED}, {}), x)


def test_ratios_have_a_value_at_their_ends():
    assert [decibel(*pair) for pair in ((100, 1), (1, 0), (0, 0), (0, 1))] == [20, np.inf, np.inf, -np.inf]
    assert [share(*pair) for pair in ((1, 4), (0, 0), (1, 0))] == [0.25, 0, np.inf]
