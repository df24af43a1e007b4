"""Dot products over four channels, for several outputs at once, by instruction set.

Every form is exact. Products of two bytes are summed in 16 bits where such instructions are twice as fast; with weights
of few bits, several steps fit before the sum must move to 32 bits. ``vpmaddubsw`` saturates at 16 bits, which sums of
two products reach with 8-bit weights only: those are split into their upper seven bits and the lowest one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.errors import TargetError
from tvm_ahcq.quantizers.core.narrow_sums import steps_by_width
from tvm_ahcq.target import HostTarget

from .avx2 import dot_bytes
from .vector import SIGN_BITS, repeat_codes


@dataclass(frozen=True)
class Dot4:
    """A step of an integer dot product over four channels.

    Attributes
    ----------
    rows : int
        Rows of a register tile that is 16 outputs wide.
    short_rows : int
        The same where channel groups are short: sums and outputs then share the registers.
    unit_bytes : int
        Bytes of weights of one step: four channels of ``unit_bytes / 4`` outputs.
    units_per_finish : int
        Sums that `finish` turns into one vector of outputs.
    sum_type, partial_type : str
        Types of a sum, and of the narrower sum that steps add to.
    depth : int
        Steps that a partial sum holds without overflow; 0 where steps add to the sum itself.
    centred : bool
        Codes count as code - 128; the caller adds 128 times the sum of the weights.
    step : callable
        ``(partial, codes, weights) -> partial``: four codes in an int32, int8 weights of one unit.
    flush : callable
        ``(sum, partial) -> sum``.
    finish : callable
        ``(*sums) -> int32`` vector with one element for each output.
    """

    rows: int
    short_rows: int
    unit_bytes: int
    units_per_finish: int
    sum_type: str
    partial_type: str
    depth: int
    centred: bool
    step: Callable[[Expr, Expr, Expr], Expr]
    flush: Callable[[Expr, Expr], Expr]
    finish: Callable[..., Expr]

    @property
    def units(self) -> int:
        """Units in a block of 16 outputs."""
        return 64 // self.unit_bytes

    @property
    def sum_lanes(self) -> int:
        """Lanes of a sum."""
        return int(self.sum_type.split("x")[1])

    @property
    def partial_lanes(self) -> int:
        """Lanes of a partial sum."""
        return int(self.partial_type.split("x")[1])

    @property
    def outputs(self) -> int:
        """Outputs that `finish` gives."""
        return self.unit_bytes // 4 * self.units_per_finish


_INT8_MAX = 127

_DEEP = 16
"""Steps between two flushes from which on the 32-bit sums of a large tile may wait in memory."""


def _largest(weight_bits: int) -> int:
    """Largest absolute value of ``code - zero_point``."""
    return 128 if weight_bits == 8 else 2**weight_bits - 1


def _pairs(unsigned: Expr, signed: Expr) -> Expr:
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", unsigned, signed)


def _widen(pairs: Expr, factor: int) -> Expr:
    ones = T.broadcast(T.int16(factor), 16)
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", pairs, ones)


def _avx2_step(partial: Expr, codes: Expr, weights: Expr) -> Expr:
    return partial + _pairs(repeat_codes(codes, "uint8", 8), weights)


def _avx2_wide_step(total: Expr, codes: Expr, weights: Expr) -> Expr:
    """``w = 2 * (w >> 1) + (w & 1)``: pairs of 255 * -64 and of 255 * 1 stay within 16 bits."""
    unsigned, one = repeat_codes(codes, "uint8", 8), T.broadcast(T.int8(1), 32)
    upper = _widen(_pairs(unsigned, T.shift_right(weights, one)), 2)
    return total + upper + _widen(_pairs(unsigned, T.bitwise_and(weights, one)), 1)


def _take(_total: Expr, partial: Expr) -> Expr:
    return partial


def _same(total: Expr) -> Expr:
    return total


def _avx2(weight_bits: int, operand_max: int, exact_steps: int) -> Dot4:
    depth = max(exact_steps, steps_by_width(_largest(weight_bits), operand_max))
    if depth == 0:
        return Dot4(
            rows=4,
            short_rows=4,
            unit_bytes=32,
            units_per_finish=1,
            sum_type="int32x8",
            partial_type="int32x8",
            depth=0,
            centred=False,
            step=_avx2_wide_step,
            flush=_take,
            finish=_same,
        )

    def flush(total: Expr, partial: Expr) -> Expr:
        return total + _widen(partial, 1)

    return Dot4(
        rows=6 if depth >= _DEEP else 2,
        short_rows=3 if depth >= _DEEP else 2,
        unit_bytes=32,
        units_per_finish=1,
        sum_type="int32x8",
        partial_type="int16x16",
        depth=depth,
        centred=False,
        step=_avx2_step,
        flush=flush,
        finish=_same,
    )


def _avxvnni(_weight_bits: int, _operand_max: int, _exact_steps: int) -> Dot4:
    def step(total: Expr, codes: Expr, weights: Expr) -> Expr:
        return dot_bytes(total, repeat_codes(codes, "uint8", 8), weights)

    return Dot4(
        rows=6,
        short_rows=3,
        unit_bytes=32,
        units_per_finish=1,
        sum_type="int32x8",
        partial_type="int32x8",
        depth=0,
        centred=False,
        step=step,
        flush=_take,
        finish=_same,
    )


def _signed(codes: Expr, lanes: int, centred: bool) -> Expr:
    """Four codes as int8, repeated; less 128 if `centred`."""
    return repeat_codes(T.bitwise_xor(codes, T.int32(SIGN_BITS)) if centred else codes, "int8", lanes)


def _neon_dot(_weight_bits: int, operand_max: int, _exact_steps: int) -> Dot4:
    centred = operand_max > _INT8_MAX

    def step(total: Expr, codes: Expr, weights: Expr) -> Expr:
        return T.call_llvm_pure_intrin(
            "int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", total, _signed(codes, 4, centred), weights
        )

    return Dot4(
        rows=6,
        short_rows=6,
        unit_bytes=16,
        units_per_finish=1,
        sum_type="int32x4",
        partial_type="int32x4",
        depth=0,
        centred=centred,
        step=step,
        flush=_take,
        finish=_same,
    )


def _neon(weight_bits: int, operand_max: int, exact_steps: int) -> Dot4:
    """Without a dot product: ``smlal`` adds products to 16-bit sums, pairs of which then add up to 32 bits.

    A sum takes one product a step: steps of two products that are proven to fit do so all the more.
    """
    centred = operand_max > _INT8_MAX
    depth = steps_by_width(_largest(weight_bits), 128 if centred else operand_max, products=1)
    if not centred:
        depth = max(depth, exact_steps)

    def step(partial: Expr, codes: Expr, weights: Expr) -> Expr:
        return partial + T.cast(_signed(codes, 2, centred), "int16x8") * T.cast(weights, "int16x8")

    def flush(total: Expr, partial: Expr) -> Expr:
        return total + T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", partial)

    def finish(left: Expr, right: Expr) -> Expr:
        return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.addp.v4i32", left, right)

    return Dot4(
        rows=2,
        short_rows=2,
        unit_bytes=8,
        units_per_finish=2,
        sum_type="int32x4",
        partial_type="int16x8",
        depth=depth,
        centred=centred,
        step=step,
        flush=flush,
        finish=finish,
    )


_BY_ISA = {"avxvnni": _avxvnni, "avx2": _avx2, "neon-dot": _neon_dot, "neon": _neon}


DOT4_ISAS = tuple(_BY_ISA)
"""Instruction sets that :func:`dot4` knows."""


def dot4(target: HostTarget, weight_bits: int, operand_max: int = 255, exact_steps: int = 0) -> Dot4:
    """Return the fastest exact form on `target`.

    Parameters
    ----------
    target : HostTarget
        Processor.
    weight_bits : int
        Bits of the codes that weights come from.
    operand_max : int
        Greatest operand.
    exact_steps : int
        Steps proven to fit 16-bit sums by :func:`tvm_ahcq.quantizers.core.narrow_sums.exact_steps`; 0 if nothing is
        known but the widths.

    Raises
    ------
    TargetError
        The target has no dot product over four channels.
    """
    if target.isa not in _BY_ISA:
        raise TargetError(f"no dot product over four channels is known for target {target.name!r}")
    return _BY_ISA[target.isa](weight_bits, operand_max, exact_steps)
