"""Relax patterns of the operators that the accelerator can take, and the lowering of a match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tvm import relax, tirx
from tvm.relax.dpl import DFPattern, is_const, is_op, wildcard

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.attention.operator import lower_attention
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.linear.operator import lower_linear, lower_mlp
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.tiles import NO_TILES, Tiles
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.ir.register import is_op as is_call
from tvm_ahcq.quantizers.core.reference import AttentionConstants

ShapeOf = Callable[[relax.Expr], list[int]]
"""Gives a tensor's shape as numbers."""

LINEAR, MLP, ATTENTION = "ahcq.linear", "ahcq.mlp", "ahcq.attention"
"""Names of the composite functions."""

_LINEAR_CONSTANTS, _ATTENTION_CONSTANTS = 5, 4


def _grouped_linear(operands: DFPattern) -> DFPattern:
    return is_op("relax.ahcq.grouped_linear")(operands, *[is_const() for _ in range(_LINEAR_CONSTANTS)])


def _attention(constants: int) -> DFPattern:
    operands = [wildcard() for _ in "qkv"]
    return is_op("relax.ahcq.log_attention")(*operands, *[is_const() for _ in range(constants)])


def patterns() -> list[tuple[str, DFPattern]]:
    """Return composite names and patterns, the largest pattern first."""
    first = _grouped_linear(wildcard())
    encoded = is_op("relax.ahcq.encode_intervals")(first, is_const(), is_const())
    return [
        (MLP, _grouped_linear(encoded)),
        (LINEAR, _grouped_linear(wildcard())),
        (ATTENTION, _attention(_ATTENTION_CONSTANTS)),
        (ATTENTION, _attention(_ATTENTION_CONSTANTS + 2)),
    ]


Parameters = LinearLayer | list[np.ndarray]
"""Constants of a call: of a linear layer, and the arguments of any other operator as they are."""


def lower(
    config: Config,
    kind: str,
    calls: list[relax.Call],
    parameters: list[Parameters],
    operands: np.ndarray | None = None,
    tiles: Tiles = NO_TILES,
    shape_of: ShapeOf | None = None,
) -> OffloadedOp:
    """Lower one match of a pattern.

    Parameters
    ----------
    config : Config
        Accelerator.
    kind : str
        Name of the composite.
    calls : list of Call
        Its calls, in order.
    parameters : list of LinearLayer or list of numpy.ndarray
        Constants of each call.
    operands : numpy.ndarray, optional
        Of a linear layer behind an interval encoder: the encoder's table.
    tiles : mapping of Shape to Tile
        Tiles that tuning chose.
    shape_of : callable, optional
        Gives a tensor's shape in a call with one prompt; needed where another axis than the first is symbolic.

    Returns
    -------
    OffloadedOp
        Marked, where sizes are symbolic: a program for the rows of a prompt where the first axis alone is, for any
        number of rows where others are.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator.
    TuningError
        If a tile does not fit.
    """
    lowered = _lower(config, kind, calls, parameters, operands, tiles, shape_of or one_prompt)
    symbolic = [not isinstance(dim, tirx.IntImm) for dim in calls[0].args[0].ty.shape.values]
    if not any(symbolic):
        return lowered
    if not any(symbolic[1:]):
        return replace(lowered, batched=True)
    if kind == ATTENTION:
        raise DeviceError("the number of tokens of an attention must be static")
    (given,), output = lowered.inputs, lowered.output
    return replace(
        lowered, inputs=(replace(given, total=1),), output=replace(output, total=1), batched=True, repeats=output.total
    )


def _lower(
    config: Config,
    kind: str,
    calls: list[relax.Call],
    parameters: list[Parameters],
    operands: np.ndarray | None,
    tiles: Tiles,
    shape_of: ShapeOf,
) -> OffloadedOp:
    first, *others = parameters
    if not isinstance(first, LinearLayer):
        scalars, thresholds, table, out_scale, *rel = first
        heads, queries, channels = matrix_shape(shape_of(calls[0].args[0]))
        keys = matrix_shape(shape_of(calls[0].args[1]))[1]
        if (width := matrix_shape(shape_of(calls[0].args[2]))[2]) != channels:
            raise DeviceError(f"its values have {width} channels, its keys {channels}; the accelerator takes as many")
        constants = AttentionConstants.of(
            scalars, thresholds, table, float(out_scale[0]), bool(calls[0].attrs["row_relative"])
        )
        rel_h, rel_w = rel or (None, None)
        return lower_attention(config, (heads, queries, keys, channels), constants, rel_h, rel_w, tiles)
    batch, rows, _ = matrix_shape(shape_of(calls[0].args[0]))
    if kind == LINEAR:
        return lower_linear(config, batch * rows, first, operands, tiles)
    encoder, second = others
    assert isinstance(second, LinearLayer) and not isinstance(encoder, LinearLayer)
    thresholds, values = encoder
    return lower_mlp(config, batch * rows, first, thresholds, values, second, tiles)


def one_prompt(expr: relax.Expr) -> list[int]:
    """Return the shape of a tensor's part for one prompt; the whole shape where all axes are static.

    Raises
    ------
    DeviceError
        If another axis than the first is not static.
    """
    first, *others = expr.ty.shape.values
    shape = [1 if isinstance(first, tirx.Var) else first, *others]
    if not all(isinstance(dim, (int, tirx.IntImm)) for dim in shape):
        raise DeviceError(f"a tensor of shape {expr.ty.shape}: no axis but the first may depend on the prompts")
    return [int(dim) for dim in shape]


def matrix_shape(shape: list[int]) -> tuple[int, int, int]:
    """Return a shape with all axes but the last two merged."""
    *batch, rows, channels = shape
    return int(np.prod(batch, dtype=np.int64)), rows, channels


def multiply_adds(call: relax.Call, shape_of: ShapeOf = one_prompt) -> int:
    """Return the multiply-adds of a linear layer, an attention or a product of matrices.

    Parameters
    ----------
    shape_of : callable
        Gives a tensor's shape as numbers.
    """
    first = matrix_shape(shape_of(call.args[0]))
    if is_call(call, "relax.ahcq.log_attention") or is_call(call, "relax.ahcq.attention"):
        heads, queries, channels = first
        keys, values = matrix_shape(shape_of(call.args[2]))[1:]
        return heads * queries * keys * (channels + values)
    batch, rows, inputs = first
    return batch * rows * inputs * shape_of(call)[-1]
