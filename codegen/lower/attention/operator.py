"""Attention as an offloaded operator: program, constants, and the layout of its tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.generated.isa import LIMITS
from tvm_ahcq.codegen.lower.address_space import DeviceMemory
from tvm_ahcq.codegen.lower.linear.operator import SAME_CODES
from tvm_ahcq.codegen.lower.linear.stage import WORD_BITS, SumField
from tvm_ahcq.codegen.lower.offloaded_op import InputLayout, OffloadedOp, OutputLayout, constant_channel
from tvm_ahcq.codegen.lower.tiles import NO_TILES, AttentionTile, Tiles, tile_misfit
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import AttentionConstants
from tvm_ahcq.runtime.operator_shapes import AttentionShape

from .addresses import AttentionAddresses, place_attention
from .plan import AttentionPlan, AttentionStage, largest_plan, sides_of
from .stream import stream_instructions

_TILES_OF_A_RUN = 160
"""Least tiles of queries that a program of attention takes at a time, where there are so many."""


def lower_attention(
    config: Config,
    shape: tuple[int, int, int, int],
    constants: AttentionConstants,
    rel_h: np.ndarray | None = None,
    rel_w: np.ndarray | None = None,
    tiles: Tiles = NO_TILES,
) -> OffloadedOp:
    """Lower an attention: 4-bit codes of queries, keys and values in, float32 out.

    Parameters
    ----------
    config : Config
        Accelerator.
    shape : (int, int, int, int)
        Heads (batch included), queries, keys, channels.
    constants : AttentionConstants
        Constants of the site.
    rel_h, rel_w : numpy.ndarray, optional
        ``(2 height - 1, channels)`` and ``(2 width - 1, channels)`` int8 tables of relative positions.
    tiles : mapping of Shape to Tile
        Tiles that tuning chose.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator, or its probabilities are not row-relative.
    TuningError
        If a tile does not fit.
    """
    _check_probabilities(constants)
    heads, queries, keys, channels = shape
    whole = AttentionStage(heads, queries, keys, channels, constants, rel_h, rel_w)
    key = attention_shape(config, whole)
    batch = heads_of_a_run(_plan(config, whole, key, tiles))
    plan = _plan(config, replace(whole, heads=batch), key, tiles)
    memory = DeviceMemory()
    addresses = place_attention(plan, memory)
    tables = None if rel_h is None or rel_w is None else (len(rel_h), len(rel_w))
    return OffloadedOp(
        config,
        stream_instructions(plan, addresses),
        memory,
        inputs=_inputs(plan, addresses, heads),
        output=_output(plan, addresses, heads),
        token_key=(config, tiles.get(key), batch, queries, keys, channels, tables),
        shapes=(key,),
        tuned=key in tiles,
    )


def _check_probabilities(constants: AttentionConstants) -> None:
    """Check that codes of probabilities are what PROB computes."""
    if not constants.row_relative:
        raise DeviceError(
            "codes of its probabilities depend on the sum of their row, which the accelerator does not know before it "
            "encodes them: quantize its probabilities with 'row_relative', as the recipe 'ahcq' does"
        )
    codes = 1 << LIMITS["code_bits"]
    if len(constants.table) > codes:
        raise DeviceError(f"its probabilities have {len(constants.table)} codes; the accelerator takes {codes}")


def _inputs(plan: AttentionPlan, addresses: AttentionAddresses, heads: int) -> tuple[InputLayout, ...]:
    """Layouts of queries, keys and values; `heads` are those of all runs.

    Padded channels of queries are their zero point, whatever the keys are there; the first of the values is their sum.
    """
    stage, dim = plan.stage, plan.config.dim
    given = (
        (addresses.queries, stage.queries, plan.query_rows(), plan.constants.q_zero),
        (addresses.keys, stage.keys, plan.key_rows(), 0),
        (addresses.values, stage.keys, plan.key_rows(), plan.one),
    )
    layouts = []
    for address, rows, row_at, code in given:
        channel_at = np.full(plan.channel_blocks * dim, constant_channel(code))
        channel_at[: stage.channels] = np.arange(stage.channels)
        layouts.append(
            InputLayout(address, heads * rows, stage.heads, rows, stage.channels, dim, row_at, channel_at, SAME_CODES)
        )
    return tuple(layouts)


def _output(plan: AttentionPlan, addresses: AttentionAddresses, heads: int) -> OutputLayout:
    """Layout of the results; `heads` are those of all runs."""
    stage = plan.stage
    return OutputLayout(
        address=addresses.sums,
        total=heads * stage.queries,
        batch=stage.heads,
        rows=stage.queries,
        blocks=plan.result_blocks,
        dim=plan.config.dim,
        row_at=plan.query_rows(),
        fields=(SumField(0, 0, WORD_BITS),),
        multiplier=np.full((1, stage.channels), plan.constants.out_scale, np.float32),
        bias=np.zeros(stage.channels, np.float32),
        divisor=1 if plan.one > plan.constants.v_zero else -1,
    )


def attention_shape(config: Config, stage: AttentionStage) -> AttentionShape:
    """Tuning key of an attention."""
    sides = () if stage.rel_h is None else sides_of(config, stage)
    return AttentionShape(stage.heads, stage.queries, stage.keys, stage.channels, sides)


def _plan(config: Config, stage: AttentionStage, shape: AttentionShape, tiles: Tiles) -> AttentionPlan:
    """Plan that tuning chose for an attention, of which the stage may be some heads, else the default."""
    tile = tiles.get(shape)
    if tile is None:
        return largest_plan(config, stage)
    if not isinstance(tile, AttentionTile):
        raise tile_misfit(config, shape, tile)
    try:
        return AttentionPlan(config, stage, tile.queries, tile.lines, tile.lag)
    except DeviceError as error:
        raise tile_misfit(config, shape, tile) from error


def heads_of_a_run(plan: AttentionPlan) -> int:
    """Return the number of heads that a program takes at a time: so many that its start and end hardly count."""
    fewest, heads = -(-_TILES_OF_A_RUN // plan.tiles), plan.stage.heads
    return next(count for count in range(min(fewest, heads), heads + 1) if heads % count == 0)
