"""Errors of quantized weights, and condition numbers of the matrices before and after they were changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.weight.weights import QuantizedWeight

from .site_error import decibel


@dataclass(frozen=True)
class WeightError:
    """Quantization error of one weight.

    Attributes
    ----------
    name, layer : str
        Parameter, and the layer that it belongs to.
    bits : int
        Code width.
    shape : tuple of int
        Output channels first.
    sqnr : float
        Signal to quantization noise, decibel, from the float model's weight to what its codes stand for.
    condition_before, condition_after, condition_codes : float or None
        Greatest singular value over least: of the float model's weight, of the one that conditioning and rounding left
        (the same where they left it alone), and of what its codes stand for. inf if the matrix is rank-deficient, None
        if the weight is not a matrix.
    """

    name: str
    layer: str
    bits: int
    shape: tuple[int, ...]
    sqnr: float
    condition_before: float | None
    condition_after: float | None
    condition_codes: float | None


def weight_error(name: str, weight: np.ndarray, changed: np.ndarray, quantized: QuantizedWeight) -> WeightError:
    """Error of the parameter `name`.

    Parameters
    ----------
    name : str
        Such as ``encoder.layers.0.attn.qkv.weight``.
    weight, changed : numpy.ndarray
        ``(N, K)`` or ``(N, C, k, k)`` float32: the float model's, and the one that was encoded.
    quantized : QuantizedWeight
        Codes of `changed`.
    """
    values = quantized.dequantize().reshape(weight.shape)
    exact = weight.astype(np.float64)
    sqnr = decibel(float(np.square(exact).sum()), float(np.square(values - exact).sum()))
    before, codes = condition(weight), condition(values)
    after = before if changed is weight else codes if np.array_equal(changed, values) else condition(changed)
    layer = name.removesuffix(".weight")
    return WeightError(name, layer, quantized.bits, weight.shape, sqnr, before, after, codes)


def condition(weight: np.ndarray) -> float | None:
    """Condition number of a matrix, by a float64 singular value decomposition; trailing axes of size 1 do not count.

    Returns
    -------
    float or None
        inf if the least singular value is within rounding of 0 (``max(N, K) eps`` of the greatest); None if the weight
        is not a matrix.
    """
    if weight.ndim < 2 or weight[0, 0].size != 1:
        return None
    values = np.linalg.svd(weight.reshape(weight.shape[:2]).astype(np.float64), compute_uv=False)
    if values[-1] <= values[0] * max(weight.shape) * np.finfo(np.float64).eps:
        return float("inf")
    return float(values[0] / values[-1])
