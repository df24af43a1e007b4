"""Sizes and buffers that the inline functions of a log-domain attention share."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of an attention kernel.

    Attributes
    ----------
    heads, queries, keys : int or Expr
        Batch times heads, queries, and keys (see ``reference.MAX_KEYS``); anything but an int makes a kernel for
        any number.
    d : int
        Channels of a head's queries and keys.
    grid : (int, int) or None
        Height and width, ``queries = keys = h * w``, if there are decomposed relative positions.
    n_thresholds : int
        Thresholds between the codes of a probability, at least 1.
    packed_heads : int
        Heads of a self-attention whose operands are one tensor and whose outputs lie side by side; 0 if each operand
        is a separate tensor and each head has an output matrix. With fewer queries than keys, the queries are a tensor
        of their own, and those among the operands are not read.
    bits : int
        Bits of a code of queries, keys and values; codes and zero points are below ``2**bits``.
    row_relative : bool
        True if codes are of exponentials relative to the row's maximum, whose sum divides the outputs.
    value_d : int
        Channels of a head's values and outputs; 0 if there are `d`, as packed heads always have.
    """

    heads: int | Expr
    queries: int | Expr
    keys: int | Expr
    d: int
    grid: tuple[int, int] | None
    n_thresholds: int
    packed_heads: int = 0
    bits: int = 8
    row_relative: bool = False
    value_d: int = 0

    @property
    def value_channels(self) -> int:
        """Channels of a head's values and outputs."""
        return self.value_d or self.d

    @property
    def output_heads(self) -> int:
        """Heads that lie side by side in a row of the output."""
        return self.packed_heads or 1

    @property
    def top(self) -> int:
        """Largest code, and largest absolute value of a code less its zero point."""
        return 2**self.bits - 1

    @property
    def height(self) -> int:
        """Lines of the grid, 1 where there is none."""
        return self.grid[0] if self.grid else 1

    @property
    def width(self) -> int:
        """Tokens of a line of the grid, 1 where there is none."""
        return self.grid[1] if self.grid else 1


@dataclass(frozen=True)
class AttentionContext:
    """Sizes and buffers of an attention kernel while it is built.

    Attributes
    ----------
    shape : AttentionShape
        Sizes.
    q, k, v : Buffer
        uint8 ``(heads, tokens, channels)``.
    rel_h, rel_w : Buffer or None
        int8 ``(2 h - 1, d)`` and ``(2 w - 1, d)``, if there is a grid.
    constants, thresholds, table, out_scale : Buffer
        Arguments of :func:`.dispatch.log_attention`.
    out : Buffer
        float32 ``(heads / output_heads, output_heads, queries, channels of a value)``.
    """

    shape: AttentionShape
    q: Buffer
    k: Buffer
    v: Buffer
    rel_h: Buffer | None
    rel_w: Buffer | None
    constants: Buffer
    thresholds: Buffer
    table: Buffer
    out_scale: Buffer
    out: Buffer

    @property
    def q_zero(self) -> Expr:
        """Zero point of the queries."""
        return self.constants[0]

    @property
    def k_zero(self) -> Expr:
        """Zero point of the keys."""
        return self.constants[1]

    @property
    def v_zero(self) -> Expr:
        """Zero point of the values."""
        return self.constants[2]

    @property
    def qk_shift(self) -> Expr:
        """Bits that products of queries and keys are shifted by."""
        return self.constants[3]

    @property
    def rel_shift(self) -> Expr:
        """Bits that products of queries and relative positions are shifted by."""
        return self.constants[4]

    @property
    def qk_multiplier(self) -> Expr:
        """Factor of shifted products of queries and keys."""
        return self.constants[5]

    @property
    def rel_h_multiplier(self) -> Expr:
        """Factor of shifted products of queries and vertical relative positions."""
        return self.constants[6]

    @property
    def rel_w_multiplier(self) -> Expr:
        """Factor of shifted products of queries and horizontal relative positions."""
        return self.constants[7]

    @property
    def shift(self) -> Expr:
        """Bits that sums of scaled products are shifted by to be base-2 logits."""
        return self.constants[8]

    def scale(self, total: Expr) -> Expr:
        """Factor of a row's sums of operands times values; `total` is its sum of operands."""
        factor = self.out_scale[0]
        return factor / T.cast(total, "float32") if self.shape.row_relative else factor

    def query_row(self, first_row: Expr, r: Expr) -> Expr:
        """Row `r` of a tile that begins at `first_row`; past the end, the last row again."""
        return T.min(first_row + r, self.shape.queries - 1)
