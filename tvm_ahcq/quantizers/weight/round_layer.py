"""One layer rounded so that, on what the quantized network feeds it, it answers as the float layer does.

Three steps, each kept only where it helps on samples that it has not seen: the weight is corrected for the error that
its input already carries (a ridge regression from quantized inputs to the float layer's outputs), its codes are chosen
with error compensation (:mod:`.gptq`), and scales and bias are refitted to the codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from tvm_ahcq.quantizers.core.range_rule import MIN_SCALE

from .acnr import Conditioner, input_error_moment
from .gptq import Curvature, round_gptq
from .weights import QuantizedWeight, calibrate_weight

ACNR_ITERATIONS = (0, 1, 2, 5, 10, 20, 50, 100, 200)
"""Strengths of ACNR that are tried, in order, until one does worse than the one before."""

SWEEPS = 0
"""Rounds of coordinate descent after compensation; one lowers the error by 1 to 3 % and doubles the time."""

RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03)
"""Tried strengths of the regression's pull towards the float weight, in units of the mean variance of an input."""


@dataclass(frozen=True, eq=False)
class LayerSample:
    """The same rows of a layer's input in the float and in the quantized network.

    Attributes
    ----------
    float_inputs, quantized_inputs : numpy.ndarray
        ``(R, K)`` float32.
    held_out : numpy.ndarray
        ``(R,)`` bool: rows that are held out when choices are compared; they come from other images than the rest.
    """

    float_inputs: np.ndarray
    quantized_inputs: np.ndarray
    held_out: np.ndarray

    def part(self, held_out: bool) -> LayerSample:
        """The held-out rows, or the others; all of them where a part would be empty."""
        rows = self.held_out == held_out
        rows = rows if rows.any() else np.ones_like(rows)
        return LayerSample(self.float_inputs[rows], self.quantized_inputs[rows], self.held_out[rows])


@dataclass(frozen=True, eq=False)
class RoundedLayer:
    """A layer as it will run.

    Attributes
    ----------
    weight : QuantizedWeight
        Codes and scales.
    bias : numpy.ndarray or None
        ``(N,)`` float32; None where the layer has none.
    error, nearest_error : float
        Squared error of the output over that of the output itself, on held-out rows: of this layer, and of
        round-to-nearest with the float weight.
    ridge : float or None
        Strength of the input correction; None where the float weight was kept.
    iterations : int
        Of ACNR, 0 where it does not help.
    condition_number : tuple of float
        Before and after ACNR; (nan, nan) where it was not tried.
    """

    weight: QuantizedWeight
    bias: np.ndarray | None
    error: float
    nearest_error: float
    ridge: float | None
    iterations: int = 0
    condition_number: tuple[float, float] = (np.nan, np.nan)


class _Moments:
    """A sample around its means (where a bias can take up the difference) and what is solved for on it.

    With centred rows Q (R, K) and differences D = X - Q, the weight that minimises
    ``|W X^T - V Q^T|^2 / R + ridge |W - V|^2`` is ``V = W + W D^T Q (Q^T Q + R ridge)^-1``, or the same with
    ``(Q Q^T + R ridge)^-1 Q`` where there are fewer rows than inputs.
    """

    def __init__(self, sample: LayerSample, centred: bool):
        x, q = sample.float_inputs, sample.quantized_inputs
        self.float_mean = x.mean(0, dtype=np.float64) if centred else np.zeros(x.shape[1])
        self.quant_mean = q.mean(0, dtype=np.float64) if centred else np.zeros(x.shape[1])
        self.rows = q - self.quant_mean.astype(np.float32)
        self.difference = x - self.float_mean.astype(np.float32) - self.rows
        self.unit = float(np.square(self.rows, dtype=np.float64).mean()) or 1.0

    @cached_property
    def curvature(self) -> Curvature:
        """Of the output error as a function of the weight."""
        return Curvature((self.rows.T @ self.rows).astype(np.float64) / len(self.rows))

    def corrected(self, weight: np.ndarray, ridge: float) -> np.ndarray:
        """The weight that best maps quantized inputs to float outputs, pulled towards `weight`, float32."""
        few, gram, cross = self._products
        factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
        change = torch.cholesky_solve((torch.from_numpy(weight) @ cross).T.double(), factor).T.float()
        return weight + (change @ torch.from_numpy(self.rows) if few else change).numpy()

    @cached_property
    def _products(self) -> tuple[bool, torch.Tensor, torch.Tensor]:
        """In units of the inputs' mean variance, ``Q^T Q / R`` and ``D^T Q / R``; or, where there are fewer rows than
        inputs (which is told first), ``Q Q^T / R`` and ``D^T / R``."""
        q, d, scale = torch.from_numpy(self.rows), torch.from_numpy(self.difference), len(self.rows) * self.unit
        if len(q) < q.shape[1]:
            return True, (q @ q.T).double() / scale, d.T / scale
        return False, self.curvature.hessian, d.T @ q / scale

    def bias(self, weight: np.ndarray, rounded: np.ndarray, bias: np.ndarray | None) -> np.ndarray | None:
        """`bias` plus the mean difference of the outputs."""
        if bias is None:
            return None
        return (bias + weight @ self.float_mean - rounded @ self.quant_mean).astype(np.float32)

    def refit_scales(self, target: np.ndarray, quantized: QuantizedWeight) -> QuantizedWeight:
        """Scales of least squared output error for the given codes."""
        steps = quantized.operands().reshape(len(target), -1).astype(np.float32)
        found, wanted = self.rows @ steps.T, self.rows @ target.T
        energy = np.square(found, dtype=np.float64).sum(0)
        fitted = np.multiply(found, wanted, dtype=np.float64).sum(0) / np.where(energy > 0, energy, 1)
        near = (energy > 0) & (fitted > np.maximum(0.5 * quantized.scale, MIN_SCALE)) & (fitted < 2 * quantized.scale)
        scale = np.where(near, fitted, quantized.scale).astype(np.float32)
        return QuantizedWeight(quantized.codes, scale, quantized.zero_point, quantized.bits)


def output_error(
    sample: LayerSample, weight: np.ndarray, bias: np.ndarray | None, rounded: np.ndarray, new_bias: np.ndarray | None
) -> float:
    """Relative squared error of the rounded layer's output; the float layer's variance is the unit."""
    wanted = sample.float_inputs @ weight.T + (0 if bias is None else bias)
    found = sample.quantized_inputs @ rounded.T + (0 if new_bias is None else new_bias)
    energy = float(np.square(wanted - wanted.mean(0)).mean(dtype=np.float64))
    return float(np.square(found - wanted).mean(dtype=np.float64)) / max(energy, 1e-20)


def round_layer(
    weight: np.ndarray,
    bias: np.ndarray | None,
    sample: LayerSample,
    bits: int,
    weight_range: str = "mse",
    condition: bool = False,
    compensate: bool = True,
) -> RoundedLayer:
    """Codes, scales and bias of one layer.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32; the taps of a convolution are columns.
    bias : numpy.ndarray or None
        ``(N,)`` float32; None where the layer has none, so that none can be added.
    sample : LayerSample
        What the layer sees.
    bits : int
        Code width of weights.
    weight_range : str
        As for :func:`.weights.calibrate_weight`.
    condition : bool
        Try ACNR (:mod:`.acnr`) at several strengths, and none.
    compensate : bool
        Correct for the input's errors and choose codes with compensation, where that helps; else round to the nearest
        and refit the bias alone.

    Notes
    -----
    The correction is the closed form of asymmetric calibration, min over V of ``|W x - V x_q|^2 + ridge |W - V|^2``;
    the compensation of rounding errors is that of GPTQ (arXiv 2210.17323).
    """
    train, held_out = sample.part(False), sample.part(True)
    moments = _Moments(train, bias is not None)

    def error_of(quantized: QuantizedWeight) -> float:
        values = quantized.dequantize()
        return output_error(held_out, weight, bias, values, moments.bias(weight, values, bias))

    nearest = calibrate_weight(weight, bits, weight_range)
    nearest_error = error_of(nearest)
    best: tuple[float, _Plan | None] = (nearest_error, None)
    conditioned, numbers = (weight, 0), (np.nan, np.nan)
    if condition:
        conditioned, numbers = _conditioned(weight, train, bits, weight_range, error_of)
    ridge = _best_ridge(weight, bias, moments, held_out) if compensate else None
    plans = [_Plan(weight, None)] * compensate + ([_Plan(weight, ridge)] if ridge else [])
    if conditioned[1]:
        plans.append(_Plan(conditioned[0], ridge, conditioned[1]))
    for plan in plans:
        error = error_of(_compensated(plan, moments, bits, weight_range))
        if error < best[0]:
            best = (error, plan)
    error, chosen = best
    moments = _Moments(sample, bias is not None)
    quantized = nearest if chosen is None else _compensated(chosen, moments, bits, weight_range)
    new_bias = moments.bias(weight, quantized.dequantize(), bias)
    chosen = chosen or _Plan(weight, None)
    if not chosen.iterations:
        numbers = (numbers[0], numbers[0])
    return RoundedLayer(quantized, new_bias, error, nearest_error, chosen.ridge, chosen.iterations, numbers)


@dataclass(frozen=True, eq=False)
class _Plan:
    """How codes are found: from which weight, with how strong an input correction."""

    weight: np.ndarray
    ridge: float | None
    iterations: int = 0


def _conditioned(
    weight: np.ndarray, sample: LayerSample, bits: int, weight_range: str, error_of: Callable[[QuantizedWeight], float]
) -> tuple[tuple[np.ndarray, int], tuple[float, float]]:
    """The conditioned weight that costs the least when it is rounded to the nearest, with its iterations (0: none
    helps) and the condition numbers before and after."""
    conditioner = Conditioner(weight, input_error_moment(sample.float_inputs - sample.quantized_inputs))
    best = (np.inf, weight, 0, conditioner.cond_before)
    for iterations in ACNR_ITERATIONS if conditioner.applies else (0,):
        found = conditioner.weight(iterations)
        error = error_of(calibrate_weight(found.weight, bits, weight_range))
        if error > best[0]:
            break
        best = (error, found.weight, iterations, found.cond_after)
    return best[1:3], (conditioner.cond_before, best[3])


def _best_ridge(weight: np.ndarray, bias: np.ndarray | None, moments: _Moments, held_out: LayerSample) -> float | None:
    """The strength whose unrounded correction does best on held-out rows; None if none beats the float weight."""
    plain = output_error(held_out, weight, bias, weight, moments.bias(weight, weight, bias))
    errors: dict[float | None, float] = {None: plain}
    for ridge in RIDGES:
        corrected = moments.corrected(weight, ridge)
        errors[ridge] = output_error(held_out, weight, bias, corrected, moments.bias(weight, corrected, bias))
        if errors[ridge] > min(errors.values()):
            break
    return min(errors, key=errors.__getitem__)


def _compensated(plan: _Plan, moments: _Moments, bits: int, weight_range: str) -> QuantizedWeight:
    target = plan.weight if plan.ridge is None else moments.corrected(plan.weight, plan.ridge)
    ranges = calibrate_weight(target, bits, weight_range)
    codes = round_gptq(target, moments.curvature, ranges.scale, ranges.zero_point, bits, sweeps=SWEEPS)
    return moments.refit_scales(target, QuantizedWeight(codes, ranges.scale, ranges.zero_point, bits))
