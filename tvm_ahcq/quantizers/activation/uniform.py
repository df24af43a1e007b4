"""Uniform (affine) quantizer with one range a tensor: parameters and calibration; see docs/quantizers.md#uniform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.core.codebook import Codebook, build_codebook
from tvm_ahcq.quantizers.core.params import (
    QuantizerParams,
    check_bits,
    check_samples,
    check_scales,
    check_zero_points,
    register,
    to_float32,
)
from tvm_ahcq.quantizers.core.prefix_sums import PrefixSums, prefix_sums
from tvm_ahcq.quantizers.core.range_rule import range_rule
from tvm_ahcq.quantizers.core.reference import encode_uniform


@register("uniform")
@dataclass(frozen=True)
class UniformParams(QuantizerParams):
    """``code = clip(rint(x / scale) + zero_point, 0, 2**bits - 1)``, ``value = scale * (code - zero_point)``.

    Attributes
    ----------
    bits : int
        Code width.
    scale : float
        Step, float32.
    zero_point : int
        Code of exactly 0.
    """

    bits: int
    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales([self.scale])
        check_zero_points([self.zero_point], self.bits)
        object.__setattr__(self, "scale", to_float32(self.scale))
        object.__setattr__(self, "zero_point", int(self.zero_point))

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return codes of float32 `x`, uint8."""
        return encode_uniform(x, self.scale, self.zero_point, self.bits)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return float32 values of `codes`."""
        return (codes.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)

    def fake_quant(self, x: np.ndarray) -> np.ndarray:
        """Return `x` rounded to representable values, float32."""
        return self.decode(self.encode(x))

    def codebook(self) -> Codebook:
        """Return the codebook with equal codes on every finite float32."""
        return build_codebook(self.encode, np.arange(2**self.bits) - self.zero_point, self.scale)

    def codebooks(self) -> tuple[Codebook, ...]:
        """Return the codebook of the only channel group."""
        return (self.codebook(),)


def uniform_from_range(low: float, high: float, bits: int) -> UniformParams:
    """Return the uniform quantizer of one range."""
    scale, zero_point = range_rule(low, high, bits)
    return UniformParams(bits, float(scale), int(zero_point))


def calibrate_uniform(
    samples: np.ndarray, bits: int, method: str = "mse", importance: np.ndarray | None = None
) -> UniformParams:
    """Return a uniform quantizer for `samples`.

    Parameters
    ----------
    samples : numpy.ndarray
        Any shape, float32.
    bits : int
        Code width.
    method : {"mse", "minmax"}
        "minmax" takes the whole range; "mse" shrinks its two ends independently to the least squared error.
    importance : numpy.ndarray, optional
        ``(C,)`` weight of each channel (last axis) in the error; "mse" only.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    samples = check_samples(samples, "uniform")
    if method == "minmax":
        return uniform_from_range(samples.min(), samples.max(), bits)
    if method != "mse":
        raise ValueError(f"Calibration method {method!r} is unknown; expected 'mse' or 'minmax'.")
    return search_uniform(prefix_sums(samples, importance), bits)


def search_uniform(sums: PrefixSums, bits: int) -> UniformParams:
    """Return the quantizer of least squared error: a coarse grid over both ends, then two finer ones."""
    ends = min(sums.low, 0.0), max(sums.high, 0.0)
    shrink, width = (0.55, 0.55), 0.45
    best = (np.inf, 0.0, 0)
    for points in (13, 9, 9):
        steps = np.linspace(-width, width, points)
        axes = [np.clip(at + steps, 0.02, 1.0) if end else np.ones(1) for at, end in zip(shrink, ends, strict=True)]
        low, high = np.meshgrid(ends[0] * axes[0], ends[1] * axes[1], indexing="ij")
        scale, zero_point = range_rule(low, high, bits)
        error = uniform_error(sums, scale, zero_point, bits)
        i, j = np.unravel_index(error.argmin(), error.shape)
        shrink, width = (axes[0][i], axes[1][j]), 2 * width / (points - 1)
        best = min(best, (float(error[i, j]), float(scale[i, j]), int(zero_point[i, j])))
    return UniformParams(bits, best[1], best[2])


def uniform_error(sums: PrefixSums, scale: np.ndarray, zero_point: np.ndarray, bits: int) -> np.ndarray:
    """Return the weighted squared error of uniform quantizers; scales and zero points have any common shape."""
    steps = np.arange(2**bits) - np.asarray(zero_point)[..., None]
    scale = np.asarray(scale, np.float64)[..., None]
    return sums.squared_error((steps[..., 1:] - 0.5) * scale, steps * scale)
