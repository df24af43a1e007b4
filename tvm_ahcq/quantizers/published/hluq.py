"""HLUQ as published: two free scales, the 3 x 3 search, and the published code's fault as a switch.

It explains differences from the paper's numbers; :mod:`tvm_ahcq.quantizers.activation.hluq` is deployed. See
docs/quantizers.md#hluq.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.activation.hluq import TableParams
from tvm_ahcq.quantizers.core.codebook import Codebook, build_codebook
from tvm_ahcq.quantizers.core.params import check_bits, check_scales, register, to_float32
from tvm_ahcq.quantizers.core.range_rule import MIN_SCALE

GRID = tuple((range_rate, grid_rate) for range_rate in (0.1, 0.3, 0.5) for grid_rate in (1 / 8, 1 / 4, 1 / 2))
"""Candidates (range_rate, grid_rate) in the order of the search."""

MASKS = ("fixed", "ref")


@dataclass(frozen=True)
class HluqScales:
    """Parameters of the published quantizer.

    Attributes
    ----------
    bits : int
        Code width.
    fp_min : float
        Value of code 0.
    scale_log, scale_uni : float
        Top of the log region above `fp_min`, and step above it.
    grid_rate : float
        Share of the codes that are powers of two.
    """

    bits: int
    fp_min: float
    scale_log: float
    scale_uni: float
    grid_rate: float

    @property
    def log_levels(self) -> int:
        """Number of powers of two."""
        return int(self.grid_rate * 2**self.bits)

    def table(self) -> np.ndarray:
        """Return ``(2**bits,)`` float32 values, ascending: zero code, log codes, uniform codes."""
        return self.heights() + np.float32(self.fp_min)

    def heights(self) -> np.ndarray:
        """Return ``(2**bits,)`` float32 values relative to `fp_min`, to which they may be too small to add."""
        log_codes = np.exp2(-np.arange(self.log_levels - 1, -1, -1, dtype=np.float32)) * np.float32(self.scale_log)
        steps = np.arange(1, 2**self.bits - self.log_levels, dtype=np.float32)
        uniform = np.float32(self.scale_log) + steps * np.float32(self.scale_uni)
        return np.concatenate([[np.float32(0)], log_codes, uniform])


@register("hluq_published")
@dataclass(frozen=True)
class HluqPublishedParams(TableParams):
    """The published quantizer in deployable form: its own thresholds, its values rounded to an unsigned 8-bit table.

    Attributes
    ----------
    bits : int
        Code width.
    fp_min, scale_log, scale_uni, grid_rate
        As in :class:`HluqScales`, float32.
    """

    bits: int
    fp_min: float
    scale_log: float
    scale_uni: float
    grid_rate: float

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales([self.scale_log], "scale_log")
        check_scales([self.scale_uni], "scale_uni")
        for field in ("fp_min", "scale_log", "scale_uni"):
            object.__setattr__(self, field, to_float32(getattr(self, field)))

    @classmethod
    def of(cls, scales: HluqScales) -> HluqPublishedParams:
        """Return the deployable form of the published parameters."""
        return cls(scales.bits, scales.fp_min, scales.scale_log, scales.scale_uni, scales.grid_rate)

    @property
    def scales(self) -> HluqScales:
        """Published form of the parameters."""
        return HluqScales(self.bits, self.fp_min, self.scale_log, self.scale_uni, self.grid_rate)

    @property
    def delta(self) -> float:  # type: ignore[override]
        """Scale of the table."""
        return to_float32(self.scales.heights()[-1] / np.float32(255))

    @property
    def offset(self) -> float:  # type: ignore[override]
        """Value of code 0."""
        return self.fp_min

    def codebook(self) -> Codebook:
        """Return the staircase with the codes of :func:`encode_published`."""
        scales = self.scales
        table = np.clip(np.rint(scales.heights().astype(np.float64) / np.float32(self.delta)), 0, 255)
        return build_codebook(lambda x: encode_published(x, scales), table, self.delta, self.offset)


def scales_from_range(low: float, high: float, bits: int, range_rate: float, grid_rate: float) -> HluqScales:
    """Return the scales of a range for one candidate of the grid; those of a constant are ``MIN_SCALE``, not 0."""
    reach = np.float32(high) - np.float32(low)
    uniform = reach * (1 - range_rate) / ((2**bits - 1) * (1 - grid_rate))
    log, uniform = (max(float(scale), MIN_SCALE) for scale in (range_rate * reach, uniform))
    return HluqScales(bits, float(low), log, uniform, grid_rate)


def encode_published(x: np.ndarray, scales: HluqScales, mask: str = "fixed") -> np.ndarray:
    """Return indices into ``scales.table()``, uint8.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any shape.
    scales : HluqScales
        Parameters.
    mask : {"fixed", "ref"}
        "fixed": the zero code is for the log region only. "ref": the published code's fault, whose test
        ``k >= log_levels`` also covers values v of the uniform region and maps those with ``v >= log_levels`` to
        `scale_log`.
    """
    if mask not in MASKS:
        raise ValueError(f"mask is {mask!r}; expected 'fixed' or 'ref'.")
    levels = scales.log_levels
    v = np.asarray(x, np.float32) - np.float32(scales.fp_min)
    exponent = np.rint(-np.log2(np.maximum(v, np.float32(1e-20)) / np.float32(scales.scale_log)))
    log_code = np.where(exponent >= levels, 0, levels - np.clip(exponent, 0, levels - 1))
    with np.errstate(over="ignore"):
        steps = np.rint((v - np.float32(scales.scale_log)) / np.float32(scales.scale_uni))
    uniform_code = levels + np.clip(steps, 0, 2**scales.bits - levels - 1)
    if mask == "ref":
        uniform_code = np.where(v >= levels, levels, uniform_code)
    return np.where(v <= np.float32(scales.scale_log), log_code, uniform_code).astype(np.uint8)


def fake_quant_published(x: np.ndarray, scales: HluqScales, mask: str = "fixed") -> np.ndarray:
    """Return `x` rounded to the table's values, float32."""
    return scales.table()[encode_published(x, scales, mask)]


def search_published(
    batches: Sequence[np.ndarray], weight: np.ndarray, bits: int, mask: str = "fixed"
) -> tuple[HluqScales, np.ndarray]:
    """Search the published 3 x 3 grid.

    Parameters
    ----------
    batches : sequence of numpy.ndarray
        ``(..., C)`` float32 calibration batches.
    weight : numpy.ndarray
        ``(N, C)`` float weight of the layer that reads them.
    bits : int
        Code width.
    mask : {"fixed", "ref"}
        As in :func:`encode_published`.

    Returns
    -------
    scales : HluqScales
        From the range averaged over all batches, with the candidate of least mean loss (the first of equals).
    losses : numpy.ndarray
        ``(B, 9)`` mean squared error of the layer's output; batch i is scored with the ranges averaged over 0..i.
    """
    lows = np.cumsum([batch.min() for batch in batches]) / np.arange(1, len(batches) + 1)
    highs = np.cumsum([batch.max() for batch in batches]) / np.arange(1, len(batches) + 1)
    losses = np.empty((len(batches), len(GRID)))
    for i, batch in enumerate(batches):
        for j, rates in enumerate(GRID):
            error = fake_quant_published(batch, scales_from_range(lows[i], highs[i], bits, *rates), mask) - batch
            losses[i, j] = np.mean((error @ weight.T) ** 2)
    return scales_from_range(lows[-1], highs[-1], bits, *GRID[losses.mean(0).argmin()]), losses
