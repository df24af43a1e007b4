"""CAG: channel-aware grouping. Each channel takes one of a few uniform quantizers.

The published rule clusters (scale, zero point) pairs; here each channel joins the group in which its weighted error is
least, and each group's range is fitted again to its channels. See docs/quantizers.md#cag.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.quantizers.core.codebook import Codebook
from tvm_ahcq.quantizers.core.kmeans import kmeans
from tvm_ahcq.quantizers.core.params import (
    QuantizerParams,
    check_bits,
    check_samples,
    check_scales,
    check_zero_points,
    register,
    to_float32,
)
from tvm_ahcq.quantizers.core.prefix_sums import prefix_sums_of_sorted
from tvm_ahcq.quantizers.core.range_rule import MIN_SCALE, range_rule
from tvm_ahcq.quantizers.core.reference import encode_uniform

from .uniform import UniformParams, search_uniform, uniform_from_range

_SEARCH_ROWS, _FINAL_ROWS = 384, 4096
_ROUNDS = 6


@register("cag")
@dataclass(frozen=True)
class CagParams(QuantizerParams):
    """A uniform quantizer for each channel group.

    Attributes
    ----------
    bits : int
        Code width.
    scales : tuple of float
        ``(G,)`` steps, float32, ascending when made by :func:`calibrate_cag`.
    zero_points : tuple of int
        ``(G,)`` codes of exactly 0.
    group_of : tuple of int
        ``(C,)`` group of each channel; every group has at least one.
    """

    bits: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    group_of: tuple[int, ...]

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_scales(self.scales)
        check_zero_points(self.zero_points, self.bits)
        if len(self.scales) != len(self.zero_points) or set(self.group_of) != set(range(len(self.scales))):
            raise ValueError(
                f"{len(self.scales)} scales, {len(self.zero_points)} zero points, channels in groups "
                f"{sorted(set(self.group_of))}; expected one scale and zero point for each group, none empty."
            )
        object.__setattr__(self, "scales", tuple(to_float32(s) for s in self.scales))
        object.__setattr__(self, "zero_points", tuple(int(z) for z in self.zero_points))
        object.__setattr__(self, "group_of", tuple(int(g) for g in self.group_of))

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.scales)

    def group(self, index: int) -> UniformParams:
        """Return the uniform quantizer of one group."""
        return UniformParams(self.bits, self.scales[index], self.zero_points[index])

    def per_channel(self) -> tuple[np.ndarray, np.ndarray]:
        """Return scale (float32) and zero point (int32) of each channel, ``(C,)`` both."""
        member = np.asarray(self.group_of)
        return np.asarray(self.scales, np.float32)[member], np.asarray(self.zero_points, np.int32)[member]

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return uint8 codes of float32 `x` ``(..., C)``, in the original channel order."""
        scale, zero_point = self.per_channel()
        return encode_uniform(x, scale, zero_point, self.bits)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return float32 values of `codes` ``(..., C)``."""
        scale, zero_point = self.per_channel()
        return (codes.astype(np.float32) - zero_point.astype(np.float32)) * scale

    def fake_quant(self, x: np.ndarray) -> np.ndarray:
        """Return `x` rounded to representable values, float32."""
        return self.decode(self.encode(x))

    def codebooks(self) -> tuple[Codebook, ...]:
        """Return the codebook of each group."""
        return tuple(self.group(g).codebook() for g in range(self.groups))


def calibrate_cag(samples: np.ndarray, bits: int, importance: np.ndarray | None = None, groups: int = 4) -> CagParams:
    """Group channels by error: the best of four starts after rounds of assigning channels and refitting ranges.

    Parameters
    ----------
    samples : numpy.ndarray
        ``(R, C)`` float32 (leading axes are flattened).
    bits : int
        Code width.
    importance : numpy.ndarray, optional
        ``(C,)`` weight of a channel's squared error, ``||W[:, c]||**2`` of the layer that reads it; 1 if not given.
    groups : int
        At most; groups that end up empty are dropped.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    samples, weight = _check(samples, importance)
    search = _GroupSearch(_thin_rows(samples, _SEARCH_ROWS), weight, bits)
    groups = min(groups, samples.shape[1])
    errors = search.errors(_candidates(samples, bits))
    starts = [*_starts(samples, bits, groups), errors[_medians(errors, groups)].argmin(0)]
    outcomes = [search.run(start) for start in starts]
    labels = min(outcomes, key=lambda outcome: outcome[0])[1]
    search = _GroupSearch(_thin_rows(samples, _FINAL_ROWS), weight, bits)
    quantizers = search.fit(_compact(labels))
    return _ordered(quantizers, search.errors(quantizers).argmin(0), bits)


def regroup_by_error(
    params: CagParams, samples: np.ndarray, groups: int, importance: np.ndarray | None = None
) -> CagParams:
    """Reduce the groups by error, one step of progressive grouping.

    A learned scale stays unless a range fitted to the new group's channels has less error.

    Parameters
    ----------
    params : CagParams
        More groups than asked for.
    samples : numpy.ndarray
        ``(R, C)`` float32 (leading axes are flattened).
    groups : int
        At most.
    importance : numpy.ndarray, optional
        As for :func:`calibrate_cag`.

    Raises
    ------
    CalibrationError
        If the samples are none or not finite.
    """
    samples, weight = _check(samples, importance)
    if samples.shape[1] != len(params.group_of):
        raise ValueError(f"samples have {samples.shape[1]} channels; expected {len(params.group_of)}.")
    search = _GroupSearch(_thin_rows(samples, _FINAL_ROWS), weight, params.bits)
    current = [params.group(g) for g in range(params.groups)]
    errors = search.errors(current)
    chosen = _medians(errors, min(groups, params.groups))
    used, labels = np.unique(errors[chosen].argmin(0), return_inverse=True)
    learned = [current[chosen[index]] for index in used]
    fitted = search.fit(labels)
    both = np.stack([search.errors(learned), search.errors(fitted)])
    totals = [[both[side, g, labels == g].sum() for side in (0, 1)] for g in range(len(used))]
    quantizers = [fitted[g] if new < old else learned[g] for g, (old, new) in enumerate(totals)]
    return _ordered(quantizers, search.errors(quantizers).argmin(0), params.bits)


def _check(samples: np.ndarray, importance: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return samples as ``(R, C)`` float32, and a positive weight for each channel."""
    samples = check_samples(samples, "CAG")
    samples = samples.reshape(-1, samples.shape[-1])
    channels = samples.shape[1]
    weight = np.ones(channels) if importance is None else np.asarray(importance, np.float64)
    if weight.shape != (channels,) or not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError(f"importance has shape {weight.shape}; expected ({channels},) finite, not negative.")
    return samples, weight + 1e-12 * (weight.max() or 1.0)  # channels that nothing reads still need a group


def _thin_rows(samples: np.ndarray, limit: int) -> np.ndarray:
    """Return at most `limit` rows, chosen at random (seeded)."""
    if len(samples) <= limit:
        return samples
    return samples[np.sort(np.random.default_rng(0).choice(len(samples), limit, replace=False))]


def _starts(samples: np.ndarray, bits: int, groups: int) -> list[np.ndarray]:
    """Return three start groupings: clusters of ranges, quantiles of the width, clusters of (scale, zero point)."""
    low, high = samples.min(0), samples.max(0)
    width = np.maximum(high, 0) - np.minimum(low, 0)
    quantile = np.empty(len(width), np.int64)
    quantile[np.argsort(width, kind="stable")] = np.arange(len(width)) * groups // len(width)
    pairs = np.stack(range_rule(low, high, bits), 1)
    return [kmeans(np.stack([low, high], 1), groups), quantile, kmeans(pairs, groups)]


def _candidates(samples: np.ndarray, bits: int) -> list[UniformParams]:
    """Return quantizers of ranges typical of the channels (clusters of width and centre), whole and shrunk."""
    low, high = np.minimum(samples.min(0), 0), np.maximum(samples.max(0), 0)
    width = np.maximum(high - low, MIN_SCALE)
    labels = kmeans(np.stack([np.log2(width), 2 * low / width], 1), 32, starts=1)
    candidates = []
    for label in np.unique(labels):
        ends = low[labels == label].mean(), high[labels == label].mean()
        candidates += [uniform_from_range(ends[0] * shrink, ends[1] * shrink, bits) for shrink in (1.0, 0.7, 0.45)]
    return candidates


class _GroupSearch:
    """Alternation of assigning channels and refitting ranges on one sample set, which is sorted once."""

    def __init__(self, samples: np.ndarray, weight: np.ndarray, bits: int) -> None:
        self.samples, self.weight, self.bits = samples, weight, bits
        order = np.argsort(samples, axis=None)
        self.values = samples.reshape(-1)[order]
        self.channel = (order % samples.shape[1]).astype(np.int32)

    def fit(self, labels: np.ndarray) -> list[UniformParams]:
        """Return the uniform quantizer of least error of each group."""
        fitted = []
        for g in range(labels.max() + 1):
            member = (labels == g)[self.channel]
            sums = prefix_sums_of_sorted(self.values[member], self.weight[self.channel[member]])
            fitted.append(search_uniform(sums, self.bits))
        return fitted

    def errors(self, quantizers: list[UniformParams]) -> np.ndarray:
        """Return the weighted squared error of every channel under every quantizer, ``(G, C)``."""
        rows = []
        for q in quantizers:
            difference = q.fake_quant(self.samples) - self.samples
            rows.append(np.einsum("rc,rc->c", difference, difference) * self.weight)
        return np.stack(rows)

    def run(self, labels: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the least error over the rounds, and its grouping."""
        best = (np.inf, labels)
        for _ in range(_ROUNDS):
            labels = _compact(labels)
            errors = self.errors(self.fit(labels))
            total = float(errors[labels, np.arange(labels.size)].sum())
            if total < best[0]:
                best = (total, labels)
            moved = errors.argmin(0)
            if (moved == labels).all():
                break
            labels = moved
        return best


def _compact(labels: np.ndarray) -> np.ndarray:
    """Renumber so that no group is empty."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def _medians(errors: np.ndarray, groups: int) -> list[int]:
    """Return the rows of errors ``(Q, C)`` of least total minimum: chosen greedily, then swapped while that helps."""
    chosen = [int(errors.sum(1).argmin())]
    while len(chosen) < groups:
        chosen.append(int(np.minimum(errors, errors[chosen].min(0)).sum(1).argmin()))
    improved = True
    while improved:
        improved = False
        for place in range(groups if groups > 1 else 0):
            others = errors[chosen[:place] + chosen[place + 1 :]].min(0)
            costs = np.minimum(errors, others).sum(1)
            if costs.min() < costs[chosen[place]] * (1 - 1e-9):
                chosen[place], improved = int(costs.argmin()), True
    return chosen


def _ordered(quantizers: list[UniformParams], labels: np.ndarray, bits: int) -> CagParams:
    """Return parameters with the groups that have channels, by ascending scale."""
    used = sorted(np.unique(labels), key=lambda g: (quantizers[g].scale, quantizers[g].zero_point))
    rank = {int(g): i for i, g in enumerate(used)}
    return CagParams(
        bits,
        tuple(quantizers[g].scale for g in used),
        tuple(quantizers[g].zero_point for g in used),
        tuple(rank[int(g)] for g in labels),
    )
