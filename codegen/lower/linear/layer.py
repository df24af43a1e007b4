"""A quantized linear layer as a stage of the accelerator: groups padded to whole words, weights as 4-bit codes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.layout import planes
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.weights import QLinearWeight

from .stage import HALF_BITS, LinearStage, pack_fields

CODES = 1 << HALF_BITS
"""Codes of an operand; codes and weights that have more are taken as two halves."""

_CYCLES_OF_A_RUN = 1 << 21
"""Cycles of the array that the program of a linear layer takes at a time, where there is so much to do."""

_LEAST_ROWS = 128
"""Least rows of a program, where there are so many: weights are loaded for them."""


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """The parameters of ``ahcq.grouped_linear``.

    Attributes
    ----------
    weight : QLinearWeight
        Weight codes, with the channel groups of the activation.
    bias : numpy.ndarray
        ``(N,)`` float32.
    """

    weight: QLinearWeight
    bias: np.ndarray

    @property
    def channels(self) -> int:
        """Channels of the operand, padding included."""
        return len(self.weight.index)

    @property
    def operands(self) -> np.ndarray:
        """``(N, channels)`` int64: codes minus zero points in the order of the operand's channels, 0 as padding."""
        index, zero_point = self.weight.index, self.weight.zero_point.astype(np.int64)
        return np.where(index >= 0, self.weight.codes[:, np.maximum(index, 0)] - zero_point[:, None], 0)


@dataclass(frozen=True, eq=False)
class StagedLayer:
    """A layer as the accelerator computes it, and what the host does with its accumulators.

    Attributes
    ----------
    stage : LinearStage
        The accelerator's part.
    channel_at : numpy.ndarray
        Channel of the operand at each input channel of the stage; -1 is padding.
    multiplier : numpy.ndarray
        ``(groups, N)`` float32 scales of the accumulators.
    largest : numpy.ndarray
        ``(groups, N)`` bounds of the absolute values of the accumulators.
    correction : numpy.ndarray or None
        ``(groups, N)`` int32 that the host adds to the accumulators; None if that is 0.
    """

    stage: LinearStage
    channel_at: np.ndarray
    multiplier: np.ndarray
    largest: np.ndarray
    correction: np.ndarray | None


@dataclass(frozen=True, eq=False)
class _Group:
    """One channel group: its number in the layer, channels of the operand in place, operand of each code, bounds."""

    number: int
    channel_at: np.ndarray
    table: np.ndarray
    largest: np.ndarray


def stage_layer(
    config: Config,
    rows: int,
    layer: LinearLayer,
    table: np.ndarray | None = None,
    padded_channels: int = 0,
    code_halves: int = 1,
) -> StagedLayer:
    """Map a layer to the array.

    Parameters
    ----------
    config : Config
        Accelerator.
    rows : int
        Rows of the layer, of all runs.
    layer : LinearLayer
        Parameters.
    table : numpy.ndarray, optional
        Operand of each code, or of each half of one; by default the code minus the group's zero point.
    padded_channels : int
        If not 0, keep the channel order and zero-pad the channels to this number.
    code_halves : int
        Halves of an activation code.

    Raises
    ------
    DeviceError
        If no weight differs from 0.
    """
    dim, operands = config.dim, layer.operands
    groups = list(_groups(layer, operands, table, dim, padded_channels))
    if not groups:
        raise DeviceError("all weights are zero")
    outputs, channel_at = -(-len(operands) // dim) * dim, np.concatenate([group.channel_at for group in groups])
    coded = [_padded(half, zero, channel_at, outputs) for half, zero in weight_halves(operands)]
    codes, zeros = (np.concatenate(arrays, -1) for arrays in zip(*coded, strict=True))
    largest = np.array([group.largest for group in groups])
    stage = LinearStage(
        rows=rows_of_a_run(rows, code_halves * codes.size / dim**2),
        weight=codes,
        zero=zeros,
        group_sizes=tuple(len(group.channel_at) for group in groups),
        tables=np.array([group.table for group in groups]) if code_halves == 1 else groups[0].table,
        fields=pack_fields(largest.max(1).tolist(), len(coded)),
        code_halves=code_halves,
        weight_halves=len(coded),
    )
    weight, numbers = layer.weight, [group.number for group in groups]
    multiplier = (weight.group_scale[:, None] * weight.scale)[numbers]
    correction = _correction(layer, operands)[numbers] if code_halves > 1 else None
    return StagedLayer(stage, channel_at, multiplier, largest, correction)


def _groups(layer: LinearLayer, operands: np.ndarray, table: np.ndarray | None, dim: int, padded: int):
    """Yield the groups that have weights other than 0."""
    for number, (low, high) in enumerate(_bounds(layer)):
        inside = operands[:, low:high]
        used = np.arange(low, high) if padded else low + np.flatnonzero(inside.any(0))
        if len(used):
            values = np.arange(CODES) - layer.weight.group_zero_point[number] if table is None else table
            places = np.concatenate([used, np.full(max(-len(used) % dim, padded - len(used)), -1)])
            yield _Group(number, places, values, _largest(inside, values))


def _bounds(layer: LinearLayer) -> list[tuple[int, int]]:
    """First channel of the operand of each group, and the first one behind it."""
    return list(pairwise(np.cumsum([0, *layer.weight.group_sizes])))


def _correction(layer: LinearLayer, operands: np.ndarray) -> np.ndarray:
    """``(groups, N)`` int32: what the zero points of the activation codes add to the sums."""
    sums = [operands[:, low:high].sum(1) for low, high in _bounds(layer)]
    return (-layer.weight.group_zero_point[:, None] * np.array(sums)).astype(np.int32)


def rows_of_a_run(total: int, cycles: float) -> int:
    """Return the rows that a program takes at a time: few, so that it is short, with little padding at the end.

    A program repeats its loop over tiles of rows, an instruction each time. Run over and over it does the same work
    with fewer of them; but its start and end, when not all units work, must hardly count.

    Parameters
    ----------
    total : int
        Rows of the layer.
    cycles : float
        Cycles of the array for a row.
    """
    most = max(_LEAST_ROWS, round(_CYCLES_OF_A_RUN / cycles))
    if total <= most:
        return -(-total // 8) * 8
    return min(range(-(-most // 16) * 8, most + 1, 8), key=lambda rows: (-(-total // rows) * rows, -rows))


def weight_halves(operands: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split weights into parts of 4-bit codes: themselves, or their high and low halves.

    The range of the weights decides, whatever the bits of their codes: 8-bit codes of few values need one part.

    Parameters
    ----------
    operands : numpy.ndarray
        ``(N, K)`` weight codes minus zero points.

    Returns
    -------
    list of (numpy.ndarray, numpy.ndarray)
        Of each part, ``(N, K)`` values and ``(N,)`` zero points; their sum is the code.
    """
    zero = np.maximum(0, -operands.min(1))
    if (operands.max(1) + zero < CODES).all():
        return [(operands, zero)]
    high, low = planes(operands)  # -8 .. 7 and 0 .. 15
    return [(high, np.full_like(zero, CODES // 2)), (low, np.zeros_like(zero))]


def _padded(
    weight: np.ndarray, zero: np.ndarray, channel_at: np.ndarray, outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes ``(outputs, K)`` of the channels in their places, 0 where there is none, and zero points, both uint8."""
    codes = np.where(channel_at >= 0, weight[:, np.maximum(channel_at, 0)], 0) + zero[:, None]
    full_codes, full_zero = np.zeros((outputs, len(channel_at)), np.uint8), np.zeros(outputs, np.uint8)
    full_codes[: len(weight)], full_zero[: len(weight)] = codes, zero
    return full_codes, full_zero


def _largest(weight: np.ndarray, operands: np.ndarray) -> np.ndarray:
    """``(N,)`` bounds of the absolute sums of a group, and of the high halves' part of them alone.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` weight codes minus zero points.
    operands : numpy.ndarray
        ``(16,)`` of a code, or ``(2, 16)`` of its halves.
    """
    tables = np.atleast_2d(operands)
    ends = np.array([tables.min(1).sum(), tables.max(1).sum()])
    bounds = []
    for part in (weight, weight >> HALF_BITS << HALF_BITS) if len(weight_halves(weight)) > 1 else (weight,):
        sums = np.sort(part[:, :, None] * ends, 2).sum(1)
        bounds.append(np.abs(sums).max(1))
    return np.max(bounds, 0)
