"""Round one layer so that, on the inputs of the quantized network, its output is that of the float layer.

Three steps, each kept only where it lowers the error on held-out samples: the weight is corrected for the error of its
input (a ridge regression from quantized inputs to the float layer's outputs), its codes are chosen with error
compensation (:mod:`.gptq`), and scales and bias are refitted to the codes. See
docs/quantizers.md#error-compensated-rounding; :mod:`tvm_ahcq.calibrate.round_weights` runs it on a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from tvm_ahcq.quantizers.core.range_rule import MIN_SCALE

from .acnr import MIN_CONDITION, Conditioner, condition_number, input_error_moment
from .gptq import FactoredHessian, round_gptq
from .weights import QuantizedWeight, calibrate_weight

ACNR_ITERATIONS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Candidate iteration counts of ACNR, tried after none, in order, until the error rises."""

RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03)
"""Candidate strengths of the regression's pull towards the float weight, in units of an input's mean variance."""


@dataclass(frozen=True, eq=False)
class LayerSample:
    """The same rows of a layer's input in the float and in the quantized network.

    Attributes
    ----------
    float_inputs, quantized_inputs : numpy.ndarray
        ``(R, K)`` float32.
    held_out : numpy.ndarray
        ``(R,)`` bool: rows on which choices are compared; they come from other images than the rest.
    """

    float_inputs: np.ndarray
    quantized_inputs: np.ndarray
    held_out: np.ndarray

    def part(self, held_out: bool) -> LayerSample:
        """Return the held-out rows, or the others; all rows where the part would be empty."""
        rows = self.held_out == held_out
        rows = rows if rows.any() else np.ones_like(rows)
        return LayerSample(self.float_inputs[rows], self.quantized_inputs[rows], self.held_out[rows])


@dataclass(frozen=True, eq=False)
class RoundedLayer:
    """Result of rounding one layer.

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
        Strength of the input correction; None where there is none.
    iterations : int
        Iterations of ACNR, 0 where it does not help.
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


class InputStatistics:
    """Means, products and Hessian of a layer's sample, and the least-squares problems on them.

    With centred rows Q (R, K) and differences D = X - Q, the weight that minimises
    ``|W X^T - V Q^T|^2 / R + ridge |W - V|^2`` is ``V = W + W D^T Q (Q^T Q + R ridge)^-1``, or the same with
    ``(Q Q^T + R ridge)^-1 Q`` where there are fewer rows than inputs.

    Parameters
    ----------
    sample : LayerSample
        Inputs of the layer.
    centred : bool
        Remove the means, which a bias compensates for.
    """

    def __init__(self, sample: LayerSample, centred: bool):
        x, q = sample.float_inputs, sample.quantized_inputs
        self.float_mean = x.mean(0, dtype=np.float64) if centred else np.zeros(x.shape[1])
        self.quantized_mean = q.mean(0, dtype=np.float64) if centred else np.zeros(x.shape[1])
        self.rows = q - self.quantized_mean.astype(np.float32)
        self.difference = x - self.float_mean.astype(np.float32) - self.rows
        self.unit = float(np.square(self.rows, dtype=np.float64).mean()) or 1.0
        self._factors: dict[float, torch.Tensor] = {}

    @cached_property
    def hessian(self) -> FactoredHessian:
        """Hessian of the output error as a function of the weight."""
        return FactoredHessian((self.rows.T @ self.rows).astype(np.float64) / len(self.rows))

    def corrected(self, weight: np.ndarray, ridge: float) -> np.ndarray:
        """Return the weight that best maps quantized inputs to float outputs, pulled towards `weight`, float32."""
        few, _, cross = self._products
        product = (torch.from_numpy(weight) @ cross).T.double()
        change = torch.cholesky_solve(product, self._factor(ridge)).T.float()
        return weight + (change @ torch.from_numpy(self.rows) if few else change).numpy()

    def _factor(self, ridge: float) -> torch.Tensor:
        """Return the Cholesky factor of ``gram + ridge``; a search returns to one of the last two."""
        if ridge not in self._factors:
            _, gram, _ = self._products
            for old in list(self._factors)[:-1]:
                del self._factors[old]
            damped = gram.clone()
            damped.diagonal().add_(ridge)
            self._factors[ridge] = torch.linalg.cholesky(damped)
        return self._factors[ridge]

    @cached_property
    def _products(self) -> tuple[bool, torch.Tensor, torch.Tensor]:
        """True, ``Q Q^T / R`` and ``D^T / R`` if there are fewer rows than inputs; else False, ``Q^T Q / R`` and
        ``D^T Q / R``. In units of the inputs' mean variance."""
        q, d, scale = torch.from_numpy(self.rows), torch.from_numpy(self.difference), len(self.rows) * self.unit
        if len(q) < q.shape[1]:
            return True, (q @ q.T).double() / scale, d.T / scale
        return False, self.hessian.matrix, d.T @ q / scale

    def bias(self, weight: np.ndarray, rounded: np.ndarray, bias: np.ndarray | None) -> np.ndarray | None:
        """Return `bias` plus the mean difference of the outputs; None if there is no bias."""
        if bias is None:
            return None
        return (bias + weight @ self.float_mean - rounded @ self.quantized_mean).astype(np.float32)

    def refit_scales(self, target: np.ndarray, quantized: QuantizedWeight) -> QuantizedWeight:
        """Return `quantized` with the scales of least squared output error, where they are near its own."""
        steps = quantized.operands().reshape(len(target), -1).astype(np.float32)
        unscaled, expected = self.rows @ steps.T, self.rows @ target.T
        energy = np.square(unscaled, dtype=np.float64).sum(0)
        fitted = np.multiply(unscaled, expected, dtype=np.float64).sum(0) / np.where(energy > 0, energy, 1)
        near = (energy > 0) & (fitted > np.maximum(0.5 * quantized.scale, MIN_SCALE)) & (fitted < 2 * quantized.scale)
        scale = np.where(near, fitted, quantized.scale).astype(np.float32)
        return replace(quantized, scale=scale)


class OutputError:
    """Squared error of a layer's output over the variance of the float layer's output.

    Parameters
    ----------
    sample : LayerSample
        Inputs of the layer.
    weight : numpy.ndarray
        ``(N, K)`` float32 of the float layer.
    bias : numpy.ndarray or None
        ``(N,)`` float32 of the float layer.
    """

    def __init__(self, sample: LayerSample, weight: np.ndarray, bias: np.ndarray | None):
        self.inputs = sample.quantized_inputs
        self.expected = sample.float_inputs @ weight.T + (0 if bias is None else bias)
        self.energy = float(np.square(self.expected - self.expected.mean(0)).mean(dtype=np.float64))

    def __call__(self, rounded: np.ndarray, bias: np.ndarray | None) -> float:
        """Return the error with the weight `rounded` and `bias`, shapes as those of the float layer."""
        output = self.inputs @ rounded.T + (0 if bias is None else bias)
        return float(np.square(output - self.expected).mean(dtype=np.float64)) / max(self.energy, 1e-20)


def round_layer(
    weight: np.ndarray,
    bias: np.ndarray | None,
    sample: LayerSample,
    bits: int,
    weight_range: str = "mse",
    condition: bool = False,
    compensate: bool = True,
) -> RoundedLayer:
    """Return codes, scales and bias of one layer.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32; the taps of a convolution are columns.
    bias : numpy.ndarray or None
        ``(N,)`` float32; None where the layer has none, so that none can be added.
    sample : LayerSample
        Inputs of the layer.
    bits : int
        Code width of weights.
    weight_range : str
        As for :func:`.weights.calibrate_weight`.
    condition : bool
        Try ACNR (:mod:`.acnr`) at several strengths, and none.
    compensate : bool
        Try the input correction and error compensation; otherwise round to nearest and refit the bias alone.
    """
    search = _VariantSearch(weight, bias, sample, bits, weight_range)
    nearest, nearest_error = search.nearest, search.nearest_error
    conditioning = search.conditioning() if condition else _Conditioning(weight)
    error, best = search.best(search.variants(conditioning, compensate))
    statistics = InputStatistics(sample, bias is not None)
    quantized = nearest if best is None else search.compensated(best, statistics)
    return RoundedLayer(
        quantized,
        statistics.bias(weight, quantized.dequantize(), bias),
        error,
        nearest_error,
        None if best is None else best.ridge,
        0 if best is None else best.iterations,
        (conditioning.before, conditioning.after if best is not None and best.iterations else conditioning.before),
    )


@dataclass(frozen=True, eq=False)
class _Variant:
    """Weight to round and strength of the input correction."""

    weight: np.ndarray
    ridge: float | None
    iterations: int = 0


@dataclass(frozen=True, eq=False)
class _Conditioning:
    """Conditioned weight, iterations of ACNR, and condition numbers before and after."""

    weight: np.ndarray
    iterations: int = 0
    before: float = np.nan
    after: float = np.nan


class _VariantSearch:
    """Comparison of ways to round one layer by their error on held-out rows."""

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray | None, sample: LayerSample, bits: int, weight_range: str
    ) -> None:
        self.weight, self.bias, self.bits, self.weight_range = weight, bias, bits, weight_range
        self.train = sample.part(False)
        self.output_error = OutputError(sample.part(True), weight, bias)
        self.statistics = InputStatistics(self.train, bias is not None)

    @cached_property
    def nearest(self) -> QuantizedWeight:
        """The float weight rounded to nearest."""
        return calibrate_weight(self.weight, self.bits, self.weight_range)

    @cached_property
    def nearest_error(self) -> float:
        """Held-out error of that."""
        return self.error(self.nearest)

    def error(self, quantized: QuantizedWeight) -> float:
        """Return the held-out error of a quantized weight with its refitted bias."""
        return self.error_of_values(quantized.dequantize())

    def error_of_values(self, values: np.ndarray) -> float:
        """Return the held-out error of a weight ``(N, K)`` float32 with its refitted bias."""
        new_bias = self.statistics.bias(self.weight, values, self.bias)
        return self.output_error(values, new_bias)

    def conditioning(self) -> _Conditioning:
        """Return the conditioned weight of least error when it is rounded to nearest."""
        before = condition_number(self.weight)
        best = _Conditioning(self.weight, 0, before, before)
        if before < MIN_CONDITION:
            return best
        conditioner = Conditioner(
            self.weight, input_error_moment(self.train.float_inputs - self.train.quantized_inputs)
        )
        least = self.nearest_error
        for iterations in ACNR_ITERATIONS if conditioner.applies else ():
            candidate = conditioner.weight(iterations)
            error = self.error(calibrate_weight(candidate.weight, self.bits, self.weight_range))
            if error > least:
                break
            least = error
            best = _Conditioning(candidate.weight, iterations, conditioner.cond_before, candidate.cond_after)
        return best

    def best_ridge(self) -> float | None:
        """Return the strength whose unrounded correction has the least error; None if none beats the float weight."""
        errors: dict[float | None, float] = {None: self.error_of_values(self.weight)}
        for ridge in RIDGES:
            errors[ridge] = self.error_of_values(self.statistics.corrected(self.weight, ridge))
            if errors[ridge] > min(errors.values()):
                break
        return min(errors, key=errors.__getitem__)

    def variants(self, conditioning: _Conditioning, compensate: bool) -> list[_Variant]:
        """Return the variants to compare with rounding to nearest."""
        ridge = self.best_ridge() if compensate else None
        variants = [_Variant(self.weight, None)] if compensate else []
        if ridge is not None:
            variants.append(_Variant(self.weight, ridge))
        if conditioning.iterations:
            variants.append(_Variant(conditioning.weight, ridge, conditioning.iterations))
        return variants

    def best(self, variants: list[_Variant]) -> tuple[float, _Variant | None]:
        """Return the least error and its variant; None where rounding to nearest is best."""
        best: tuple[float, _Variant | None] = (self.nearest_error, None)
        for variant in variants:
            error = self.error(self.compensated(variant, self.statistics))
            if error < best[0]:
                best = (error, variant)
        return best

    def compensated(self, variant: _Variant, statistics: InputStatistics) -> QuantizedWeight:
        """Return codes of a variant by error compensation on the inputs of `statistics`."""
        target = variant.weight if variant.ridge is None else statistics.corrected(variant.weight, variant.ridge)
        known = target is self.weight
        nearest = self.nearest if known else calibrate_weight(target, self.bits, self.weight_range)
        return statistics.refit_scales(target, round_gptq(target, statistics.hessian, nearest))
