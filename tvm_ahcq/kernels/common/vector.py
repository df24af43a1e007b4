"""Expressions for explicit vectors: LLVM intrinsics with fixed rounding, and the dot-product instructions."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Var

LANES = 16
"""Vector length of the kernels in 32-bit elements: one AVX-512 register, which LLVM splits for narrower machines."""

SIGN_BITS = -0x7F7F7F80
"""int32 whose bytes are 128: a code with this bit flipped is, as int8, the code minus 128."""


def extent(size: int | Expr, name: str) -> int | Var:
    """`size` if it is constant, else a fresh shape variable, so that a kernel owns its variables."""
    return size if isinstance(size, int) else Var(name, "int64")


def vector_type(base: str, lanes: int) -> str:
    """Type of a vector of `lanes` elements of type `base`; the type itself of one."""
    return base if lanes == 1 else f"{base}x{lanes}"


def _suffix(base: str, lanes: int) -> str:
    return base if lanes == 1 else f"v{lanes}{base}"


def fma(a: Expr, b: Expr, c: Expr, lanes: int = LANES) -> Expr:
    """float32 ``a * b + c`` with one rounding; a call of ``fmaf`` where the machine has no such instruction."""
    name = f"llvm.fma.{_suffix('f32', lanes)}"
    return T.call_llvm_pure_intrin(vector_type("float32", lanes), name, a, b, c)


def rint(x: Expr, lanes: int = LANES) -> Expr:
    """float32 rounded to an integer, half to even."""
    return T.call_llvm_pure_intrin(vector_type("float32", lanes), f"llvm.rint.{_suffix('f32', lanes)}", x)


def leading_zeros(x: Expr, lanes: int) -> Expr:
    """Leading zero bits of int32 `x` in `lanes` lanes."""
    return T.call_llvm_pure_intrin(vector_type("int32", lanes), f"llvm.ctlz.{_suffix('i32', lanes)}", x, T.bool(False))


def four_codes(codes: Expr) -> Expr:
    """Four uint8 values, ``uint8x4``, repeated 16 times: ``uint8x64``."""
    return T.reinterpret("uint8x64", T.broadcast(T.reinterpret("int32", codes), LANES))


def repeat_codes(codes: Expr, dtype: str, times: int) -> Expr:
    """Four bytes in an int32, repeated so often, as a vector of `dtype` ("uint8" or "int8")."""
    return T.reinterpret(f"{dtype}x{4 * times}", T.broadcast(codes, times))


def vpdpbusd(acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """``acc[i] + sum of unsigned[4 i + j] * signed[4 i + j]`` over j: int32x16, uint8x64, int8x64 -> int32x16."""
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", acc, unsigned, signed)
