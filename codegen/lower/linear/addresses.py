"""Constants of a linear layer in external memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.codegen.isa.layout import decode_table, encode_table, fixed_scale, pack_codes, weight_tiles
from tvm_ahcq.codegen.lower.address_space import DeviceMemory

from .stage import HALF_BITS, LinearStage
from .tiling import Tiling


@dataclass(frozen=True)
class LinearAddresses:
    """Byte addresses.

    Attributes
    ----------
    weights : int
        4-bit codes ``(N / Dim, weight halves, K / Dim, Dim, Dim)``.
    zero_points : int
        4-bit zero points of the outputs.
    decode, encode : int
        Decode tables; the interval encoder, 0 where there is none.
    parameters : int
        Words of ``vec``: scales, and behind them biases where sums are encoded.
    """

    weights: int
    zero_points: int
    decode: int
    encode: int
    parameters: int


def place_linear(tiling: Tiling, memory: DeviceMemory) -> LinearAddresses:
    """Place the constants of a layer in memory."""
    stage, dim = tiling.stage, tiling.config.dim
    zeros = np.zeros(tiling.zeros * dim, np.uint8)
    zeros[: len(stage.zero)] = stage.zero
    weights = memory.constant(pack_codes(weight_tiles(stage.weight, dim)))
    zero_points = memory.constant(pack_codes(zeros))
    decode = memory.constant(np.concatenate([decode_table(table) for table in stage.tables]))
    encode, encoder = 0, stage.encoder
    if encoder is None:
        parameters = memory.constant(_shifts(stage, dim))
    else:
        bias = np.rint(encoder.bias * 2.0**encoder.fraction_bits).astype(np.int32)[None]
        parameters = memory.constant(np.concatenate([*encoder.scales(), bias]).astype(np.int32))
        encode = memory.constant(encode_table(encoder.thresholds, encoder.codes))
    return LinearAddresses(weights, zero_points, decode, encode, parameters)


def _shifts(stage: LinearStage, dim: int) -> np.ndarray:
    """Scales that shift each accumulator to its field of a word."""
    last = stage.weight_halves - 1
    shifts = [field.offset + HALF_BITS * (last - half) for field in stage.fields for half in range(last + 1)]
    return np.concatenate([fixed_scale(np.full(dim, 2.0**shift), 0) for shift in shifts]).astype(np.int32)
