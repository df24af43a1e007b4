"""Packing of keys and values of a head for attention with AVX2: code less zero point, in bytes.

Codes of up to 7 bits fit. No correction for zero points remains but that of the queries, a sum over each key.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.avx2 import BYTES, LANES, pair_products, sum_pairs
from tvm_ahcq.kernels.common.fixed_point import half


@dataclass(frozen=True)
class PackedKeys:
    """Packed keys and values of one or several heads.

    Attributes
    ----------
    keys : Buffer
        int8 ``(vectors, d / 4, 32)``: four channels of 8 keys.
    offset : Buffer
        Term to add to products with each key: correction for the queries' zero point, and rounding, int32
        ``(vectors * 8,)``.
    values : Buffer
        int8 ``(2 * vectors, vectors of channels, 32)``: four keys of 8 channels.
    """

    keys: Buffer
    offset: Buffer
    values: Buffer


def _bytes(value: Expr) -> Expr:
    """int32 `value`, from 0 to 127, in every byte of a register."""
    return T.broadcast(T.cast(value, "int8"), BYTES)


def _four_values(v: Buffer, b: Expr, tokens: list[Expr], channel: Expr) -> Expr:
    """Codes of four values side by side, of 8 channels: int8x32."""
    packed = T.broadcast(T.int32(0), LANES)
    for i, token in enumerate(tokens):
        codes = T.cast(v[b, token, T.ramp(channel, 1, LANES)], "int32x8")
        packed = T.bitwise_or(packed, T.shift_left(codes, T.broadcast(8 * i, LANES))) if i else codes
    return T.reinterpret("int8x32", packed)


@T.inline
def _pack_keys(attn, b, place, vector, at, packed):
    """Pack the keys of one vector of head `b` to position `at`."""
    steps = T.meta_var(attn.shape.d // 4)
    sums = T.alloc_buffer((1,), "int32x8", scope="local")
    sums[0] = T.broadcast(0, LANES)
    for c in range(steps):
        for lane in T.unroll(LANES):
            packed.keys[at, c, T.ramp(lane * 4, 1, 4)] = T.reinterpret(
                "int8x4", attn.k[b, place.token(vector, lane), T.ramp(c * 4, 1, 4)]
            )
        packed.keys[at, c, T.ramp(0, 1, BYTES)] = packed.keys[at, c, T.ramp(0, 1, BYTES)] - _bytes(attn.k_zero)
        sums[0] = sums[0] + sum_pairs(
            pair_products(T.broadcast(T.uint8(1), BYTES), packed.keys[at, c, T.ramp(0, 1, BYTES)])
        )
    packed.offset[T.ramp(at * LANES, 1, LANES)] = T.broadcast(half(attn.qk_shift), LANES) - sums[0] * T.broadcast(
        attn.q_zero, LANES
    )


@T.inline
def _pack_values(attn, b, place, vector, at, packed):
    """Pack the values of one vector of head `b` to position `at`."""
    d = T.meta_var(attn.shape.value_channels)
    for s, part in T.grid(2, d // LANES):
        packed.values[at * 2 + s, part, T.ramp(0, 1, BYTES)] = _four_values(
            attn.v, b, [place.token(vector, s * 4 + i) for i in range(4)], part * LANES
        ) - _bytes(attn.v_zero)
    if d % LANES > 0:
        for s, lane, i in T.grid(2, d % LANES, 4):
            packed.values[at * 2 + s, d // LANES, lane * 4 + i] = T.cast(
                T.cast(attn.v[b, place.token(vector, s * 4 + i), d // LANES * LANES + lane], "int32") - attn.v_zero,
                "int8",
            )


@T.inline
def pack_vector(attn, b, place, vector, first, packed):
    """Pack the keys and values of one vector of head `b` to position ``first + vector``."""
    _pack_keys(attn, b, place, vector, first + vector, packed)
    _pack_values(attn, b, place, vector, first + vector, packed)
