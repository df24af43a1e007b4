"""Linear layers and MLPs as offloaded operators: programs, constants, and the layout of their tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.generated.isa import Instruction
from tvm_ahcq.codegen.isa.layout import fixed_thresholds, planes
from tvm_ahcq.codegen.lower.address_space import DeviceMemory
from tvm_ahcq.codegen.lower.fixed_scales import fraction_bits
from tvm_ahcq.codegen.lower.offloaded_op import InputLayout, OffloadedOp, OutputLayout
from tvm_ahcq.codegen.lower.tiles import NO_TILES, LinearTile, Tiles, tile_misfit
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.operator_shapes import LinearShape

from .layer import CODES, LinearLayer, StagedLayer, stage_layer
from .program import linear_instructions
from .stage import Encoder
from .tiling import Tiling, choose_tiling, shape_of, tiling_of

_VALUES = np.arange(256)

SAME_CODES = np.where(_VALUES < CODES, _VALUES, 255).astype(np.uint8)[None]
"""``(1, 256)`` code of each value where values are 4-bit codes; 255 is none."""

_HALF_TABLES = np.stack([CODES * np.arange(CODES), np.arange(CODES)])
"""Operands of both halves of a code; its zero point is the host's to correct: four groups would need five tables."""


def lower_linear(
    config: Config, rows: int, layer: LinearLayer, operands: np.ndarray | None = None, tiles: Tiles = NO_TILES
) -> OffloadedOp:
    """Lower a linear layer: codes in, float32 out.

    Parameters
    ----------
    config : Config
        Accelerator.
    rows : int
        Rows of the layer.
    layer : LinearLayer
        Parameters.
    operands : numpy.ndarray, optional
        All values that the input may have, where these are not 4-bit codes: operands of a table
        (``ahcq.encode_intervals``), or codes of more bits.
    tiles : mapping of Shape to Tile
        Tiles that tuning chose.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator.
    TuningError
        If a tile does not fit.
    """
    table, code_of = (None, SAME_CODES) if operands is None else _table(operands)
    staged = stage_layer(config, rows, layer, table, code_halves=len(code_of))
    return _lower(config, rows, layer.channels, [staged], layer.bias, code_of, tiles)


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
    first: LinearLayer,
    thresholds: np.ndarray,
    operands: np.ndarray,
    second: LinearLayer,
    tiles: Tiles = NO_TILES,
) -> OffloadedOp:
    """Lower two layers with an interval encoder between them, whose codes stay on the accelerator.

    Parameters
    ----------
    config : Config
        Accelerator.
    rows : int
        Rows of the layers.
    first, second : LinearLayer
        Parameters.
    thresholds, operands : numpy.ndarray
        Constants of ``ahcq.encode_intervals``.
    tiles : mapping of Shape to Tile
        Tiles that tuning chose.

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
    if len(second.weight.group_sizes) != 1:
        raise DeviceError("the second layer has several channel groups")
    staged = stage_layer(config, rows, first)
    encoder = _encoder(staged, first.bias, thresholds, codes.astype(np.uint8))
    layers = [
        replace(staged, stage=replace(staged.stage, encoder=encoder)),
        stage_layer(config, rows, second, table, padded_channels=staged.stage.outputs),
    ]
    # a run takes the same rows through both
    layers[1] = replace(layers[1], stage=replace(layers[1].stage, rows=staged.stage.rows))
    return _lower(config, rows, first.channels, layers, second.bias, SAME_CODES, tiles)


def _encoder(layer: StagedLayer, bias: np.ndarray, thresholds: np.ndarray, codes: np.ndarray) -> Encoder:
    """Fixed-point scales, padded to the layer's outputs, and thresholds in their unit."""
    bits = fraction_bits(layer.multiplier, bias, layer.largest)
    multiplier, padded = np.zeros((len(layer.multiplier), layer.stage.outputs)), np.zeros(layer.stage.outputs)
    multiplier[:, : len(bias)], padded[: len(bias)] = layer.multiplier, bias
    return Encoder(multiplier, padded, bits, fixed_thresholds(thresholds, bits), codes)


def _lower(
    config: Config,
    total: int,
    channels: int,
    layers: list[StagedLayer],
    bias: np.ndarray,
    code_of: np.ndarray,
    tiles: Tiles,
) -> OffloadedOp:
    """Programs of layers one behind the other, each of whose codes is the input of the next."""
    memory, dim = DeviceMemory(), config.dim
    rows = layers[0].stage.rows
    channel_at = np.tile(layers[0].channel_at, len(code_of))  # each half of the codes has a matrix
    source = memory.scratch(rows * len(channel_at) // 2)
    at, instructions, tilings = source, list[Instruction](), []
    for layer in layers:
        result = memory.scratch(layer.stage.result_bytes())
        tilings.append(_tiling(config, total, layer, tiles))
        instructions += linear_instructions(memory, tilings[-1], at, result)
        at = result
    last, row_at = layers[-1].stage, np.arange(rows)
    output = OutputLayout(
        address=at,
        total=total,
        batch=1,
        rows=rows,
        blocks=last.outputs // dim,
        dim=dim,
        row_at=row_at,
        fields=last.fields,
        multiplier=layers[-1].multiplier,
        bias=bias,
        correction=layers[-1].correction,
    )
    first, token_key = layers[0].stage, None
    if len(layers) == 1:  # what linear_instructions depends on
        halves = first.code_halves, first.weight_halves
        parts = tuple(map(tuple, first.parts))
        token_key = config, tilings[0].tile, rows, first.outputs, first.group_sizes, parts, *halves
    shapes = tuple(_shape(config, total, layer) for layer in layers)
    return OffloadedOp(
        config,
        instructions,
        memory,
        inputs=(InputLayout(source, total, 1, rows, channels, dim, row_at, channel_at, code_of),),
        output=output,
        token_key=token_key,
        shapes=shapes,
        tuned=any(shape in tiles for shape in shapes),
    )


def _shape(config: Config, total: int, layer: StagedLayer) -> LinearShape:
    """Tuning key of a layer."""
    used = int((layer.channel_at >= 0).sum())
    return shape_of(total, -(-used // config.dim) * config.dim, layer.stage)


def _tiling(config: Config, total: int, layer: StagedLayer, tiles: Tiles) -> Tiling:
    """Tiling that tuning chose for a layer, else the default."""
    shape = _shape(config, total, layer)
    tile = tiles.get(shape)
    if tile is None:
        return choose_tiling(config, layer.stage)
    if not isinstance(tile, LinearTile) or not (tiling := tiling_of(config, layer.stage, tile)).fits:
        raise tile_misfit(config, shape, tile)
    return tiling
