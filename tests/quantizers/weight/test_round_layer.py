"""Rounding of one layer against the float layer's output, on held-out samples."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.weight.round_layer import RIDGES, InputStatistics, LayerSample, OutputError, round_layer
from tvm_ahcq.quantizers.weight.weights import encode_weight


def layer(seed: int = 0, rows: int = 2048, inputs: int = 48, noise: float = 0.2):
    """Correlated inputs, and the same as a network before the layer would distort them."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, 20)) @ rng.normal(size=(20, inputs)) + rng.normal(size=inputs)).astype(np.float32)
    shrunk = (x * 0.9 + noise * rng.normal(size=x.shape) + 0.3).astype(np.float32)
    weight, bias = rng.normal(size=(24, inputs)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    held_out = np.arange(rows) >= rows // 2
    return (
        weight,
        bias,
        LayerSample(x[: rows * 3 // 4], shrunk[: rows * 3 // 4], held_out[: rows * 3 // 4]),
        (x, shrunk),
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_the_rounded_layer_answers_as_the_float_layer_does(bits):
    weight, bias, sample, (x, quantized) = layer()
    result = round_layer(weight, bias, sample, bits)
    unseen = LayerSample(x[1536:], quantized[1536:], np.zeros(512, bool))
    error = OutputError(unseen, weight, bias)(result.weight.dequantize(), result.bias)
    plain = round_layer(weight, bias, LayerSample(sample.float_inputs, sample.float_inputs, sample.held_out), bits)
    uncorrected = OutputError(unseen, weight, bias)(plain.weight.dequantize(), plain.bias)
    assert error < 0.25 * uncorrected
    assert result.error == pytest.approx(error, rel=0.3) and result.error < result.nearest_error
    assert result.ridge is not None


@pytest.mark.parametrize("rows", [30, 48, 500])
def test_the_input_correction_minimises_its_objective(rows):
    """With fewer rows than inputs and with more; at the minimum of a convex function, no direction goes down."""
    weight, _, sample, _ = layer()
    x, q = sample.float_inputs[:rows], sample.quantized_inputs[:rows]
    statistics = InputStatistics(LayerSample(x, q, np.zeros(rows, bool)), centred=False)
    corrected = statistics.corrected(weight, 0.1).astype(np.float64)
    unit = np.square(q, dtype=np.float64).mean()
    gradient = (corrected @ q.T - weight @ x.T) @ q / rows + 0.1 * unit * (corrected - weight)
    start = (weight @ q.T - weight @ x.T) @ q / rows
    assert np.abs(gradient).max() < 1e-4 * np.abs(start).max()


@pytest.mark.parametrize("rows", [30, 500])
def test_corrections_do_not_depend_on_those_before(rows):
    weight, _, sample, _ = layer()
    part = LayerSample(sample.float_inputs[:rows], sample.quantized_inputs[:rows], np.zeros(rows, bool))
    searched = InputStatistics(part, centred=True)
    for ridge in (*RIDGES, RIDGES[0], RIDGES[-1]):
        alone = InputStatistics(part, centred=True).corrected(weight, ridge)
        np.testing.assert_array_equal(searched.corrected(weight, ridge), alone)


def test_values_of_codes_give_the_codes_back():
    weight, bias, sample, _ = layer()
    result = round_layer(weight, bias, sample, 4).weight
    again = encode_weight(result.dequantize(), result.scale, result.zero_point, 4)
    np.testing.assert_array_equal(again.codes, result.codes)


def test_undisturbed_inputs_cost_no_more_than_rounding():
    weight, bias, sample, _ = layer()
    clean = LayerSample(sample.float_inputs, sample.float_inputs, sample.held_out)
    result = round_layer(weight, bias, clean, 8)
    assert result.error < 1e-4
    assert OutputError(clean, weight, bias)(result.weight.dequantize(), result.bias) < 1e-4


def test_a_layer_without_bias_gets_none():
    weight, _, sample, _ = layer()
    assert round_layer(weight, None, sample, 4).bias is None


def test_few_samples_fall_back_to_what_they_can_support():
    weight, bias, sample, (x, quantized) = layer()
    few = LayerSample(sample.float_inputs[:6], sample.quantized_inputs[:6], np.array([False] * 3 + [True] * 3))
    result = round_layer(weight, bias, few, 4)
    unseen = LayerSample(x[1536:], quantized[1536:], np.zeros(512, bool))
    error = OutputError(unseen, weight, bias)(result.weight.dequantize(), result.bias)
    assert np.isfinite(error) and error < 1


@pytest.mark.parametrize("rows", [np.zeros((40, 8), np.float32), np.ones((40, 8), np.float32)])
def test_constant_inputs_give_finite_layers(rows):
    weight, bias = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32), np.zeros(5, np.float32)
    result = round_layer(weight, bias, LayerSample(rows, rows, np.arange(40) > 30), 4)
    values = result.weight.dequantize()
    assert np.isfinite(values).all() and np.isfinite(result.bias).all()
    np.testing.assert_allclose(rows @ values.T + result.bias, rows @ weight.T + bias, atol=1e-3)
