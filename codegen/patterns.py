"""Which operators of an integer module the accelerator can take: Relax patterns, and what they match as numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tvm import relax, tirx
from tvm.relax.dpl import DFPattern, is_const, is_op, wildcard

from ..errors import DeviceError
from ..op.register import is_op as is_call
from ..quantizers.reference import LogAttention
from .hardware.config import Config
from .lower.lowered import Lowered
from .lower.operators import NO_TILES, LinearConstants, lower_attention, lower_linear, lower_mlp
from .lower.tiles import Tiles

LINEAR, MLP, ATTENTION = "ahcq.linear", "ahcq.mlp", "ahcq.attention"
"""Names of the composite functions."""

_LINEAR_CONSTANTS, _ATTENTION_CONSTANTS = 5, 4


def _grouped_linear(operands: DFPattern) -> DFPattern:
    return is_op("relax.ahcq.grouped_linear")(operands, *[is_const() for _ in range(_LINEAR_CONSTANTS)])


def _attention(constants: int) -> DFPattern:
    operands = [wildcard() for _ in "qkv"]
    return is_op("relax.ahcq.log_attention")(*operands, *[is_const() for _ in range(constants)])


def patterns() -> list[tuple[str, DFPattern]]:
    """Composite name and pattern, the largest first."""
    first = _grouped_linear(wildcard())
    encoded = is_op("relax.ahcq.encode_intervals")(first, is_const(), is_const())
    return [
        (MLP, _grouped_linear(encoded)),
        (LINEAR, _grouped_linear(wildcard())),
        (ATTENTION, _attention(_ATTENTION_CONSTANTS)),
        (ATTENTION, _attention(_ATTENTION_CONSTANTS + 2)),
    ]


def lower(
    config: Config,
    kind: str,
    calls: list[relax.Call],
    constants: list[list[np.ndarray]],
    operands: np.ndarray | None = None,
    tiles: Tiles = NO_TILES,
) -> Lowered:
    """Instructions for one match of a pattern.

    Parameters
    ----------
    config : Config
        Accelerator.
    kind : str
        Name of the composite.
    calls : list of Call
        Its calls, in order.
    constants : list of list of numpy.ndarray
        The constant arguments of each.
    operands : numpy.ndarray, optional
        Of a linear layer behind an interval encoder: the encoder's table.
    tiles : mapping of Shape to Tile
        What tuning found.

    Returns
    -------
    Lowered
        Of one prompt, and marked as such, where the first axis of the operands is their number.

    Raises
    ------
    DeviceError
        If it does not fit the accelerator.
    TuningError
        If a tile does not fit.
    """
    lowered = _lower(config, kind, calls, constants, operands, tiles)
    return replace(lowered, per_prompt=True) if per_prompt(calls[0].args[0]) else lowered


def _lower(
    config: Config, kind: str, calls: list[relax.Call], constants: list[list[np.ndarray]],
    operands: np.ndarray | None, tiles: Tiles,
) -> Lowered:  # fmt: skip
    if kind == ATTENTION:
        call, (scalars, thresholds, table, out_scale, *rel) = calls[0], constants[0]
        heads, queries, channels = matrix_shape(one_prompt(call.args[0]))
        keys = matrix_shape(one_prompt(call.args[1]))[1]
        numbers = LogAttention.of(scalars, thresholds, table, float(out_scale[0]))
        rel_h, rel_w = rel or (None, None)
        return lower_attention(config, (heads, queries, keys, channels), numbers, rel_h, rel_w, tiles)
    batch, rows, _ = matrix_shape(one_prompt(calls[0].args[0]))
    first = LinearConstants(*constants[0])
    if kind == LINEAR:
        return lower_linear(config, batch * rows, first, operands, tiles)
    thresholds, values = constants[1]
    return lower_mlp(config, batch * rows, first, thresholds, values, LinearConstants(*constants[2]), tiles)


def per_prompt(expr: relax.Expr) -> bool:
    """Whether the first axis of a tensor is a number that only a call says: that of prompts."""
    return isinstance(expr.ty.shape.values[0], tirx.Var)


def one_prompt(expr: relax.Expr) -> list[int]:
    """Shape of what a tensor holds of one prompt; its own where all axes are static.

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
    """All axes but the last two taken together."""
    *batch, rows, channels = shape
    return int(np.prod(batch, dtype=np.int64)), rows, channels


def multiply_adds(call: relax.Call, shape_of: Callable[[relax.Expr], list[int]] = one_prompt) -> int:
    """Of a linear layer, an attention or a product of matrices.

    Parameters
    ----------
    shape_of : callable
        Gives a tensor's shape as numbers.
    """
    first = matrix_shape(shape_of(call.args[0]))
    if is_call(call, "relax.ahcq.log_attention") or is_call(call, "relax.ahcq.attention"):
        heads, queries, channels = first
        return 2 * heads * queries * matrix_shape(shape_of(call.args[1]))[1] * channels
    batch, rows, inputs = first
    return batch * rows * inputs * shape_of(call)[-1]
