"""Offloaded operators, from the tensors of the integer module to stages and instructions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import Entry
from tvm_ahcq.codegen.isa.layout import fixed_thresholds, planes
from tvm_ahcq.codegen.lower.attention.plan import AttentionStage, Plan, sides_of
from tvm_ahcq.codegen.lower.attention.stream import largest_plan, stream_entries
from tvm_ahcq.codegen.lower.linear.program import linear_entries
from tvm_ahcq.codegen.lower.linear.stage import HALF_BITS, WORD_BITS, Encoder, Field, LinearStage, pack_fields
from tvm_ahcq.codegen.lower.linear.tiling import Tiling, choose_tiling, shape_of, tiling_of
from tvm_ahcq.errors import DeviceError, TuningError
from tvm_ahcq.quantizers.core.reference import AttentionConstants

from .address_space import DeviceMemory
from .fixed_scales import fraction_bits
from .offloaded_op import InputLayout, OffloadedOp, OutputLayout
from .tiles import AttentionShape, AttentionTile, LinearShape, LinearTile, Shape, Tile, Tiles

CODES = 16
"""Codes of an operand; codes and weights that have more are taken as two halves."""

_CYCLES_OF_A_RUN = 1 << 21
"""Of the array, that the program of a linear layer takes at a time, where there is so much to do."""

_LEAST_ROWS = 128
"""Of a program, where there are so many: weights are loaded for them."""

_TILES_OF_A_RUN = 160
"""Least tiles of queries that a program of attention takes at a time, where there are so many."""

NO_TILES: Tiles = {}

_VALUES = np.arange(256)

_OWN_CODES = np.where(_VALUES < CODES, _VALUES, 255).astype(np.uint8)[None]
"""Code of each value where values are codes."""

_HALF_TABLES = np.stack([CODES * np.arange(CODES), np.arange(CODES)])
"""Operands of both halves of a code; its zero point is the host's to correct: four groups would need five tables."""


@dataclass(frozen=True, eq=False)
class LinearConstants:
    """What ``ahcq.grouped_linear`` takes besides its operands.

    Attributes
    ----------
    packed : numpy.ndarray
        int8 weights, ``(ceil(N / 16), Kp / 4, 16, 4)`` or ``(N, Kp)``.
    bounds : numpy.ndarray
        ``(G + 1,)`` int32.
    multiplier, correction, bias : numpy.ndarray
        ``(G, N)`` float32, ``(G, N)`` int32, ``(N,)`` float32.
    """

    packed: np.ndarray
    bounds: np.ndarray
    multiplier: np.ndarray
    correction: np.ndarray
    bias: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """``(N, Kp)`` int8."""
        if self.packed.ndim == 2:
            return self.packed
        blocks, quads, lanes, four = self.packed.shape
        return self.packed.transpose(0, 2, 1, 3).reshape(blocks * lanes, quads * four)[: len(self.bias)]


@dataclass(frozen=True, eq=False)
class _Layer:
    """A stage, the operand channel in each of its input channels (-1: padding), and its groups' numbers.

    ``multiplier`` is float32 ``(groups, N)``; ``largest`` bounds the accumulators, ``(groups, N)``; ``correction``
    ``(groups, N)`` int32 is what the host adds to them, None if that is nothing.
    """

    stage: LinearStage
    channel_at: np.ndarray
    multiplier: np.ndarray
    largest: np.ndarray
    correction: np.ndarray | None


def lower_linear(
    config: Config, rows: int, constants: LinearConstants, operands: np.ndarray | None = None, tiles: Tiles = NO_TILES
) -> OffloadedOp:
    """A linear layer: codes in, float32 out.

    Parameters
    ----------
    operands : numpy.ndarray, optional
        All values that the input may have, where these are not 4-bit codes: operands of a table
        (``ahcq.encode_intervals``), or codes of more bits.
    tiles : mapping of Shape to Tile
        What tuning found.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator.
    TuningError
        If a tile does not fit.
    """
    table, code_of = (None, _OWN_CODES) if operands is None else _table(operands)
    layer = _layer(config, rows, constants, table, halves=len(code_of))
    return _lower(config, rows, int(constants.bounds[-1]), [layer], constants.bias, code_of, tiles)


def _table(operands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Operands of a code, and the code of each value, 255 where it has none.

    Of up to 16 values, ``(16,)`` and ``(1, 256)``: they are numbered. Of more, ``(2, 16)`` and ``(2, 256)``: their two
    halves are the codes.
    """
    values = np.unique(operands)
    if len(values) > CODES:
        return _HALF_TABLES, np.where(np.isin(_VALUES, values), np.stack(planes(_VALUES)), 255).astype(np.uint8)
    table, code_of = np.zeros(CODES, int), np.full((1, 256), 255, np.uint8)
    table[: len(values)] = values
    code_of[0, values] = np.arange(len(values))
    return table, code_of


def lower_mlp(
    config: Config,
    rows: int,
    first: LinearConstants,
    thresholds: np.ndarray,
    operands: np.ndarray,
    second: LinearConstants,
    tiles: Tiles = NO_TILES,
) -> OffloadedOp:
    """Two layers with an interval encoder between them, whose codes stay on the accelerator.

    Parameters
    ----------
    thresholds, operands : numpy.ndarray
        Of ``ahcq.encode_intervals``.
    tiles : mapping of Shape to Tile
        What tuning found.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator.
    TuningError
        If a tile does not fit.
    """
    table, code_of = _table(operands)
    if len(code_of) > 1:
        raise DeviceError(f"{len(np.unique(operands))} operands between the layers; at most {CODES} fit")
    codes = code_of[0, operands]
    if len(thresholds) > 31:
        raise DeviceError(f"an encoder of {len(thresholds)} thresholds; at most 31 fit")
    if len(second.multiplier) != 1:
        raise DeviceError("the second layer has several channel groups")
    plain = _layer(config, rows, first)
    encoder = _encoder(plain, first.bias, thresholds, codes.astype(np.uint8))
    layers = [
        replace(plain, stage=replace(plain.stage, encoder=encoder)),
        _layer(config, rows, second, table, every=plain.stage.outputs),
    ]
    # a run takes the same rows through both
    layers[1] = replace(layers[1], stage=replace(layers[1].stage, rows=plain.stage.rows))
    return _lower(config, rows, int(first.bounds[-1]), layers, second.bias, _OWN_CODES, tiles)


def _encoder(layer: _Layer, bias: np.ndarray, thresholds: np.ndarray, codes: np.ndarray) -> Encoder:
    """Fixed-point scales, padded to the layer's outputs, and thresholds in their unit."""
    bits = fraction_bits(layer.multiplier, bias, layer.largest)
    multiplier, padded = np.zeros((len(layer.multiplier), layer.stage.outputs)), np.zeros(layer.stage.outputs)
    multiplier[:, : len(bias)], padded[: len(bias)] = layer.multiplier, bias
    return Encoder(multiplier, padded, bits, fixed_thresholds(thresholds, bits), codes)


def _lower(
    config: Config, total: int, channels: int, layers: list[_Layer], bias: np.ndarray, code_of: np.ndarray, tiles: Tiles
) -> OffloadedOp:
    memory, dim = DeviceMemory(), config.dim
    rows = layers[0].stage.rows
    places = np.tile(layers[0].channel_at, len(code_of))  # each half of the codes has a matrix
    source = memory.scratch(rows * len(places) // 2)
    at, entries, chosen = source, list[Entry](), []
    for layer in layers:
        result = memory.scratch(layer.stage.result_bytes())
        chosen.append(_tiling(config, total, layer, tiles))
        entries += linear_entries(memory, chosen[-1], at, result)
        at = result
    last, row_at = layers[-1].stage, np.arange(rows)
    given = InputLayout(source, total, 1, rows, channels, dim, row_at, places, code_of)
    blocks = last.outputs // dim
    output = OutputLayout(
        at, total, 1, rows, blocks, dim, row_at, last.fields, layers[-1].multiplier, bias, layers[-1].correction
    )
    first = layers[0].stage
    shape = None
    if len(layers) == 1:  # what linear_entries depends on
        halves = first.code_halves, first.weight_halves
        shape = config, chosen[0].tile, rows, first.outputs, first.group_sizes, tuple(map(tuple, first.parts)), *halves
    shapes = tuple(_shape(config, total, layer) for layer in layers)
    return OffloadedOp(config, entries, memory, (given,), output, shape, shapes, any(each in tiles for each in shapes))


def _shape(config: Config, total: int, layer: _Layer) -> LinearShape:
    """What tuning knows a layer by."""
    used = int((layer.channel_at >= 0).sum())
    return shape_of(total, -(-used // config.dim) * config.dim, layer.stage)


def _tiling(config: Config, total: int, layer: _Layer, tiles: Tiles) -> Tiling:
    """What tuning found for a layer, else the default."""
    shape = _shape(config, total, layer)
    tile = tiles.get(shape)
    if tile is None:
        return choose_tiling(config, layer.stage)
    if not isinstance(tile, LinearTile) or not (tiling := tiling_of(config, layer.stage, tile)).fits:
        raise _misfit(config, shape, tile)
    return tiling


def _misfit(config: Config, shape: Shape, tile: Tile) -> TuningError:
    return TuningError(
        f"{shape}: the tile that was recorded for {config.name} ({tile}) does not fit it; tune again in "
        "an empty folder, or compile without --tuning"
    )


def rows_of_a_run(total: int, cycles: float) -> int:
    """Rows that a program takes at a time: few, so that it is short, and with little padding behind the last.

    A program repeats its loop over tiles of rows, an instruction each time. Run over and over it does the same work
    with fewer of them; but its start and end, when not all units work, must hardly count.

    Parameters
    ----------
    total : int
        Rows of the layer.
    cycles : float
        Of the array, for a row.
    """
    most = max(_LEAST_ROWS, round(_CYCLES_OF_A_RUN / cycles))
    if total <= most:
        return -(-total // 8) * 8
    return min(range(-(-most // 16) * 8, most + 1, 8), key=lambda rows: (-(-total // rows) * rows, -rows))


def _layer(
    config: Config,
    rows: int,
    constants: LinearConstants,
    table: np.ndarray | None = None,
    every: int = 0,
    halves: int = 1,
) -> _Layer:
    """The stage of a layer: groups padded to whole words, weights back as codes and zero points.

    Parameters
    ----------
    table : numpy.ndarray, optional
        Operand of each code, or of each half of one; by default the code minus the group's zero point.
    every : int
        If not 0, channels keep their places and are padded to so many.
    halves : int
        Of a code.
    """
    dim, weight = config.dim, constants.weight.astype(np.int64)
    parts, tables, kept, largest = [], [], [], []
    for group, (low, high) in enumerate(pairwise(constants.bounds)):
        inside = weight[:, low:high]
        used = np.arange(low, high) if every else low + np.flatnonzero(inside.any(0))
        if not len(used):
            continue  # padding alone
        operands = np.arange(CODES) - _zero_point(inside, constants.correction[group]) if table is None else table
        parts.append(np.concatenate([used, np.full(max(-len(used) % dim, every - len(used)), -1)]))
        tables.append(operands)
        kept.append(group)
        largest.append(_largest(inside, operands))
    if not parts:
        raise DeviceError("all weights are zero")
    outputs, channel_at = -(-len(weight) // dim) * dim, np.concatenate(parts)
    coded = [_padded(part, zero, channel_at, outputs) for part, zero in _weight_halves(weight)]
    codes, zeros = (np.concatenate(arrays, -1) for arrays in zip(*coded, strict=True))
    sizes, bounds = tuple(map(len, parts)), np.array(largest)
    fields = pack_fields(bounds.max(1).tolist(), len(coded))
    together = rows_of_a_run(rows, halves * codes.size / dim**2)
    decode = np.array(tables) if halves == 1 else tables[0]
    stage = LinearStage(together, codes, zeros, sizes, decode, fields, None, halves, len(coded))
    correction = constants.correction[kept] if halves > 1 else None
    return _Layer(stage, channel_at, constants.multiplier[kept], bounds, correction)


def _weight_halves(weight: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights ``(N, K)`` and zero points ``(N,)`` that fit 4-bit codes: themselves, or high and low halves."""
    zero = np.maximum(0, -weight.min(1))
    if (weight.max(1) + zero < CODES).all():
        return [(weight, zero)]
    high, low = planes(weight)  # -8 .. 7 and 0 .. 15
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
    """``(N,)`` greatest absolute value that the sums of a group can have, and the high halves' part of them alone.

    Parameters
    ----------
    operands : numpy.ndarray
        ``(16,)`` of a code, or ``(2, 16)`` of its halves.
    """
    tables = np.atleast_2d(operands)
    ends = np.array([tables.min(1).sum(), tables.max(1).sum()])
    found = []
    for part in (weight, weight >> HALF_BITS << HALF_BITS) if len(_weight_halves(weight)) > 1 else (weight,):
        sums = np.sort(part[:, :, None] * ends, 2).sum(1)
        found.append(np.abs(sums).max(1))
    return np.max(found, 0)


def _zero_point(weight: np.ndarray, correction: np.ndarray) -> int:
    """Zero point of a group's codes, from ``correction = -zero_point * sum of weights``."""
    sums = weight.sum(1)
    most = int(np.argmax(np.abs(sums)))
    zero = -int(correction[most]) // int(sums[most]) if sums[most] else 0
    if (correction != -zero * sums).any():
        raise DeviceError("the correction term is not that of a zero point")
    return zero


def lower_attention(
    config: Config,
    shape: tuple[int, int, int, int],
    constants: AttentionConstants,
    rel_h: np.ndarray | None = None,
    rel_w: np.ndarray | None = None,
    tiles: Tiles = NO_TILES,
) -> OffloadedOp:
    """Attention: 4-bit codes of queries, keys and values in, float32 out.

    Parameters
    ----------
    shape : (int, int, int, int)
        Heads (batch included), queries, keys, channels.
    tiles : mapping of Shape to Tile
        What tuning found.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator.
    TuningError
        If a tile does not fit.
    """
    heads, queries, keys, channels = shape
    whole = AttentionStage(heads, queries, keys, channels, constants, rel_h, rel_w)
    known = attention_shape(config, whole)
    plan = _plan(config, whole, known, tiles)
    together = heads_of_a_run(plan)
    plan = _plan(config, replace(whole, heads=together), known, tiles)
    memory, dim = DeviceMemory(), config.dim
    places = (queries, plan.query_rows()), (keys, plan.key_rows()), (keys, plan.key_rows())
    inputs = []
    for rows, row_at in places:
        at, every = memory.scratch(together * len(row_at) * channels // 2), np.arange(channels)
        inputs.append(InputLayout(at, heads * rows, together, rows, channels, dim, row_at, every, _OWN_CODES))
    plan.place(memory.constant, memory.scratch)
    result = memory.scratch(together * plan.padded_queries * channels * 4)
    plan.at |= {"sums": result} | {name: given.address for name, given in zip("qkv", inputs, strict=True)}
    scale, zero = np.full((1, channels), constants.out_scale, np.float32), np.zeros(channels, np.float32)
    output = OutputLayout(
        result,
        heads * queries,
        together,
        queries,
        plan.parts,
        dim,
        plan.query_rows(),
        (Field(0, 0, WORD_BITS),),
        scale,
        zero,
    )
    tables = None if rel_h is None or rel_w is None else (len(rel_h), len(rel_w))
    same = config, tiles.get(known), together, queries, keys, channels, tables
    return OffloadedOp(config, stream_entries(plan), memory, tuple(inputs), output, same, (known,), known in tiles)


def attention_shape(config: Config, stage: AttentionStage) -> AttentionShape:
    """What tuning knows an attention by."""
    sides = () if stage.rel_h is None else sides_of(config, stage)
    return AttentionShape(stage.heads, stage.queries, stage.keys, stage.channels, sides)


def _plan(config: Config, stage: AttentionStage, shape: AttentionShape, tiles: Tiles) -> Plan:
    """What tuning found for an attention, of which the stage may be some heads, else the default."""
    tile = tiles.get(shape)
    if tile is None:
        return largest_plan(config, stage)
    if not isinstance(tile, AttentionTile):
        raise _misfit(config, shape, tile)
    try:
        return Plan(config, stage, tile.queries, tile.lines, tile.lag)
    except DeviceError as error:
        raise _misfit(config, shape, tile) from error


def heads_of_a_run(plan: Plan) -> int:
    """Heads that a program takes at a time: those of so many tiles that its start and end hardly count."""
    fewest, heads = -(-_TILES_OF_A_RUN // plan.tiles), plan.stage.heads
    return next(count for count in range(min(fewest, heads), heads + 1) if heads % count == 0)
