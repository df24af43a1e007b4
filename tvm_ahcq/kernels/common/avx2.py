"""AVX2 instructions on expressions: products of bytes summed in 16 bits, saturated narrowing, and lookups; and the dot
product that AVX-VNNI adds."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T

LANES = 8
"""32-bit elements of a register."""

BYTES = 32
"""Bytes of a register."""

WORDS = 16
"""16-bit elements of a register."""

MAX_WORD = 2**15 - 1
"""Largest 16-bit number."""


def pair_products(unsigned: Expr, signed: Expr) -> Expr:
    """``unsigned[2 i] * signed[2 i] + unsigned[2 i + 1] * signed[2 i + 1]``: uint8x32, int8x32 -> int16x16.

    Sums saturate at 16 bits; the caller keeps them below.
    """
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", unsigned, signed)


def dot_bytes(total: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """``total[i] + sum of unsigned[4 i + j] * signed[4 i + j]`` over j: int32x8, uint8x32, int8x32 -> int32x8.

    An instruction of AVX-VNNI.
    """
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx512.vpdpbusd.256", total, unsigned, signed)


def sum_pairs(words: Expr) -> Expr:
    """``words[2 i] + words[2 i + 1]``: int16x16 -> int32x8."""
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", words, T.broadcast(T.int16(1), WORDS))


def sum_bytes(unsigned: Expr) -> Expr:
    """Sums of eight bytes each: uint8x32 -> int32x8, every second element of which is 0."""
    zero = T.broadcast(T.uint8(0), BYTES)
    sums = T.call_llvm_pure_intrin("int64x4", "llvm.x86.avx2.psad.bw", unsigned, zero)
    return T.reinterpret("int32x8", sums)


def narrow_to_words(first: Expr, second: Expr) -> Expr:
    """Two int32x8 to one int16x16, saturated, interleaved by 128-bit halves."""
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.packssdw", first, second)


def narrow_to_bytes(first: Expr, second: Expr) -> Expr:
    """Two int16x16 to one uint8x32, saturated, interleaved by 128-bit halves."""
    return T.call_llvm_pure_intrin("uint8x32", "llvm.x86.avx2.packuswb", first, second)


def add_saturated(a: Expr, b: Expr) -> Expr:
    """Sum of two int16x16, saturated."""
    return T.call_llvm_pure_intrin("int16x16", "llvm.sadd.sat.v16i16", a, b)


def choose_bytes(table: Expr, index: Expr) -> Expr:
    """``table[index]`` of two uint8x32, within each 128-bit half; indices are below 16."""
    return T.call_llvm_pure_intrin("uint8x32", "llvm.x86.avx2.pshuf.b", table, index)


def permute(x: Expr, index: Expr) -> Expr:
    """``x[index]`` of two int32x8."""
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.permd", x, index)


def any_bit(x: Expr) -> Expr:
    """True if a register, of any type, is not 0."""
    bits = T.reinterpret("int64x4", x)
    return T.call_llvm_pure_intrin("int32", "llvm.x86.avx.ptestz.256", bits, bits) == 0


def reduce_lanes(name: str, x: Expr) -> Expr:
    """LLVM's reduction `name` over an int32x8."""
    return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.{name}.v{LANES}i32", x)
