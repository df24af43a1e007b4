"""Keys, values and relative positions of a head, packed for attention with AVX512-VNNI.

Keys and values become int8 (code - 128), so that codes of up to 8 bits fit; what that and the zero points leave behind
are sums over rows and columns, which are added exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.vector import LANES, SIGN_BITS, vpdpbusd

from .softmax_codes import AttentionShape

_WASTE = 1.25
"""Lines of keys are padded to whole vectors where that makes them at most so much more."""


@dataclass(frozen=True)
class KeyVectors:
    """Which keys lie in which vector of 16.

    Where there is a grid, each of its lines begins a vector, if not too much is lost to padding: a vector then has one
    vertical relative position. Otherwise keys follow one another.

    Attributes
    ----------
    tokens : int or Expr
        Keys.
    lines : int
        Lines of the grid, or 0 where keys follow one another.
    width : int
        Keys in a line.
    """

    tokens: int | Expr
    lines: int
    width: int

    @classmethod
    def of(cls, shape: AttentionShape) -> KeyVectors:
        """For an attention."""
        h, w = shape.grid or (0, 1)
        padded = h * -(-w // LANES) * LANES
        return cls(shape.tokens, h if shape.grid and padded <= _WASTE * h * w else 0, w)

    @property
    def in_line(self) -> int:
        """Vectors of a line."""
        return -(-self.width // LANES)

    @property
    def count(self) -> int | Expr:
        """All vectors."""
        return self.lines * self.in_line if self.lines else (self.tokens + LANES - 1) // LANES

    def token(self, vector: Expr, lane: Expr) -> Expr:
        """Key in a lane; past the end, the last one again."""
        if self.lines:
            x = T.min(vector % self.in_line * LANES + lane, self.width - 1)
            return vector // self.in_line * self.width + x
        return T.min(vector * LANES + lane, self.tokens - 1)

    def is_key(self, vector: Expr) -> Expr:
        """Whether each lane of a vector holds a key of its own."""
        if self.lines:
            return T.ramp(vector % self.in_line * LANES, 1, LANES) < T.broadcast(self.width, LANES)
        first = T.cast(vector * LANES, "int32")
        return T.ramp(first, 1, LANES) < T.broadcast(T.cast(self.tokens, "int32"), LANES)


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


@T.inline
def pack_vector(k, v, constants, b, place, vector, first, d, keys, offset, values):
    """Pack the keys and values of one vector of head `b` to position ``first + vector``."""
    sums = T.alloc_buffer((1,), "int32x16", scope="local")
    for lane in range(LANES):
        for c in range(d // 4):
            keys[first + vector, c, lane, T.ramp(0, 1, 4)] = T.reinterpret(
                "int8x4",
                T.bitwise_xor(
                    T.reinterpret("int32", k[b, place.token(vector, lane), T.ramp(c * 4, 1, 4)]), T.int32(SIGN_BITS)
                ),
            )
    sums[0] = T.broadcast(128 * d, LANES)
    for c in range(d // 4):
        sums[0] = vpdpbusd(sums[0], T.broadcast(T.uint8(1), 64), keys[first + vector, c, 0, T.ramp(0, 1, 64)])
    offset[T.ramp((first + vector) * LANES, 1, LANES)] = (T.broadcast(d * constants[1], LANES) - sums[0]) * T.broadcast(
        constants[0], LANES
    )
    for t, part in T.grid(4, d // LANES):
        values[(first + vector) * 4 + t, part, T.ramp(0, 1, LANES)] = four_values(
            v, b, [place.token(vector, t * 4 + i) for i in range(4)], part * LANES
        )
    if d % LANES > 0:
        for t, lane in T.grid(4, d % LANES):
            values[(first + vector) * 4 + t, d // LANES, lane] = four_values(
                v, b, [place.token(vector, t * 4 + i) for i in range(4)], d // LANES * LANES + lane, 1
            )


@T.inline
def pack_relative(rel, count, first, backwards, d, constants, multiplier, packed, offset, scale):
    """Pack `count` relative positions from place `first` on, the last one first if `backwards`."""
    for t in range(count):
        place = first + (count - 1 - t if backwards else t)
        scale[place] = multiplier
        offset[place] = 0
        for c in range(d):
            packed[place // LANES, c // 4, place % LANES, c % 4] = rel[t, c]
            offset[place] = offset[place] - constants[0] * T.cast(rel[t, c], "int32")
