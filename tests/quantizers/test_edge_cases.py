"""What every calibration must withstand: NaN, constants, dead channels, a single image, weights without content."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.agq import calibrate_agq
from tvm_ahcq.quantizers.activation.cag import calibrate_cag
from tvm_ahcq.quantizers.activation.hluq import calibrate_hluq
from tvm_ahcq.quantizers.activation.lnq import calibrate_lnq
from tvm_ahcq.quantizers.activation.uniform import calibrate_uniform
from tvm_ahcq.quantizers.core.params import QuantizerParams, params_from_dict
from tvm_ahcq.quantizers.published.average_range import AverageRange
from tvm_ahcq.quantizers.published.cag import calibrate_cag_published
from tvm_ahcq.quantizers.published.uniform import calibrate_uniform_published
from tvm_ahcq.quantizers.weight.weights import calibrate_weight


def averaged_cag(x: np.ndarray, bits: int) -> QuantizerParams:
    seen = AverageRange(per_channel=True)
    seen.update(x)
    return calibrate_cag_published(seen.low, seen.high, bits)


ACTIVATIONS: dict[str, Callable[[np.ndarray, int], QuantizerParams]] = {
    "uniform": calibrate_uniform,
    "minmax": lambda x, bits: calibrate_uniform(x, bits, "minmax"),
    "searched": lambda x, bits: calibrate_uniform_published([x], bits),
    "cag": calibrate_cag,
    "cag published": averaged_cag,
    "hluq": calibrate_hluq,
}
PROBABILITIES = {
    "lnq": lambda p, bits: calibrate_lnq(p, None, bits),
    "agq": lambda p, bits: calibrate_agq(p, None, bits),
}
EVERY = ACTIVATIONS | PROBABILITIES


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(name, poison):
    x = np.random.default_rng(0).uniform(size=(2, 6, 8)).astype(np.float32)
    x[1, 2, 3] = poison
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        EVERY[name](x, 4)


@pytest.mark.parametrize("name", EVERY)
def test_no_samples_are_refused(name):
    with pytest.raises(CalibrationError, match="at least one image"):
        EVERY[name](np.zeros((0, 6, 8), np.float32), 4)


CONSTANTS = [(name, value) for name in EVERY for value in (0.0, 0.7, 1e-20)]
CONSTANTS += [(name, value) for name in ACTIVATIONS for value in (-0.7, 1e6)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("name", "value"), CONSTANTS)
def test_constant_activations_are_kept(name, value, bits):
    x = np.full((2, 6, 8), value, np.float32)
    params = EVERY[name](x, bits)
    assert params_from_dict(params.to_dict()) == params
    np.testing.assert_allclose(params.fake_quant(x), x, rtol=0.05, atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dead_channels_stay_zero_and_do_not_harm_the_others(name):
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(40, 8))).astype(np.float32)
    dead = x.copy()
    dead[:, [2, 5]] = 0
    params = ACTIVATIONS[name](dead, 6)
    out = params.fake_quant(dead)
    assert not out[:, [2, 5]].any()
    live = [0, 1, 3, 4, 6, 7]
    assert np.mean((out - dead)[:, live] ** 2) < 0.01 * np.mean(dead[:, live] ** 2)


@pytest.mark.parametrize("method", ["mse", "search"])
def test_weights_with_zero_columns_rows_or_nothing(method):
    w = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    w[:, 3] = w[2] = 0
    for weight in (w, np.zeros_like(w)):
        quantized = calibrate_weight(weight, 4, method)
        assert np.isfinite(quantized.scale).all() and (quantized.scale > 0).all()
        assert not quantized.dequantize()[weight == 0].any()
