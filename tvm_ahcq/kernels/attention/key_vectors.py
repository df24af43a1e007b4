"""Assignment of the keys of an attention to vectors."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.vector import LANES

from .context import AttentionShape

_WASTE = 1.25
"""Lines of keys are padded to whole vectors where that makes them at most so much more."""


@dataclass(frozen=True)
class KeyVectors:
    """Assignment of keys to vectors of `lanes` keys.

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
    lanes : int
        Keys of a vector.
    """

    tokens: int | Expr
    lines: int
    width: int
    lanes: int = LANES

    @classmethod
    def of(cls, shape: AttentionShape, lanes: int = LANES) -> KeyVectors:
        """Assignment for an attention."""
        h, w = shape.grid or (0, 1)
        padded = h * -(-w // lanes) * lanes
        return cls(shape.keys, h if shape.grid and padded <= _WASTE * h * w else 0, w, lanes)

    @property
    def in_line(self) -> int:
        """Vectors of a line."""
        return -(-self.width // self.lanes)

    @property
    def count(self) -> int | Expr:
        """All vectors."""
        return self.lines * self.in_line if self.lines else (self.tokens + self.lanes - 1) // self.lanes

    def token(self, vector: Expr, lane: Expr) -> Expr:
        """Key in a lane; past the end of a line or of all keys, the last one again."""
        if self.lines:
            x = T.min(vector % self.in_line * self.lanes + lane, self.width - 1)
            return T.min(vector // self.in_line, self.lines - 1) * self.width + x
        return T.min(vector * self.lanes + lane, self.tokens - 1)

    def is_key(self, vector: Expr) -> Expr:
        """True in each lane that holds a key, False in lanes that pad; of a line, `vector` is not past the last one."""
        if self.lines:
            return T.ramp(vector % self.in_line * self.lanes, 1, self.lanes) < T.broadcast(self.width, self.lanes)
        first = T.cast(vector * self.lanes, "int32")
        return T.ramp(first, 1, self.lanes) < T.broadcast(T.cast(self.tokens, "int32"), self.lanes)
