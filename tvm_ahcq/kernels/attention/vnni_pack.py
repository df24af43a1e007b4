"""Packing of keys and values of a head for attention with AVX512-VNNI.

Keys and values become int8 (code - 128), so that codes of up to 8 bits fit. The corrections for that and for the zero
points are sums over rows and columns, which are added exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from tvm_ahcq.kernels.common.vector import LANES, SIGN_BITS, vpdpbusd


def four_values(v, b: Expr, tokens: list[Expr], channel: Expr, lanes: int = LANES) -> Expr:
    """Four values, less 128, side by side, of as many channels as `lanes` (16 or 1), in int32."""
    packed, sign = T.int32(0), T.int32(SIGN_BITS)
    for i, token in enumerate(tokens):
        if lanes == 1:
            packed = T.bitwise_or(packed, T.shift_left(T.cast(v[b, token, channel], "int32"), 8 * i))
        else:
            words = T.cast(v[b, token, T.ramp(channel, 1, LANES)], "int32x16")
            shifted = T.shift_left(words, T.broadcast(8 * i, LANES)) if i else words
            packed = T.bitwise_or(packed, shifted) if i else shifted
    return T.bitwise_xor(packed, sign if lanes == 1 else T.broadcast(sign, LANES))


@dataclass(frozen=True)
class PackedKeys:
    """Packed keys and values of one or several heads.

    Attributes
    ----------
    packed : Buffer
        Keys, int8 ``(vectors, d / 4, 16, 4)``.
    offset : Buffer
        Correction of products with each key for packing and zero points, int32 ``(vectors * 16,)``.
    values : Buffer
        Four values a lane, int32 ``(4 * vectors, vectors of channels, 16)``.
    """

    packed: Buffer
    offset: Buffer
    values: Buffer


@T.inline
def pack_vector(attn, b, place, vector, first, keys):
    """Pack the keys and values of one vector of head `b` to position ``first + vector``."""
    d = T.meta_var(attn.shape.d)
    sums = T.alloc_buffer((1,), "int32x16", scope="local")
    for lane in range(LANES):
        for c in range(d // 4):
            keys.packed[first + vector, c, lane, T.ramp(0, 1, 4)] = T.reinterpret(
                "int8x4",
                T.bitwise_xor(
                    T.reinterpret("int32", attn.k[b, place.token(vector, lane), T.ramp(c * 4, 1, 4)]),
                    T.int32(SIGN_BITS),
                ),
            )
    sums[0] = T.broadcast(128 * d, LANES)
    for c in range(d // 4):
        sums[0] = vpdpbusd(sums[0], T.broadcast(T.uint8(1), 64), keys.packed[first + vector, c, 0, T.ramp(0, 1, 64)])
    keys.offset[T.ramp((first + vector) * LANES, 1, LANES)] = (
        T.broadcast(d * attn.k_zero, LANES) - sums[0]
    ) * T.broadcast(attn.q_zero, LANES)
    for t, part in T.grid(4, d // LANES):
        keys.values[(first + vector) * 4 + t, part, T.ramp(0, 1, LANES)] = four_values(
            attn.v, b, [place.token(vector, t * 4 + i) for i in range(4)], part * LANES
        )
    if d % LANES > 0:
        for t, lane in T.grid(4, d % LANES):
            keys.values[(first + vector) * 4 + t, d // LANES, lane] = four_values(
                attn.v, b, [place.token(vector, t * 4 + i) for i in range(4)], d // LANES * LANES + lane, 1
            )
