"""Fixed-point logarithms and powers of two, as in :mod:`tvm_ahcq.quantizers.core.reference`, on int32 expressions."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.quantizers.core.reference import _EXP_C1 as _C1
from tvm_ahcq.quantizers.core.reference import _EXP_C2 as _C2
from tvm_ahcq.quantizers.core.reference import _EXP_C3 as _C3
from tvm_ahcq.quantizers.core.reference import EXP_BITS, FRACTION_BITS

from .vector import LANES


def _all(value: int) -> Expr:
    """The int32 `value` in every lane."""
    return T.broadcast(T.int32(value), LANES)


def half(shift: Expr) -> Expr:
    """Term that makes an arithmetic right shift by the scalar `shift` >= 0 round to nearest."""
    return T.shift_right(T.shift_left(T.int32(1), shift), T.int32(1))


def rounding_shift(x: Expr, shift: Expr, lanes: int = LANES) -> Expr:
    """int32 `x` in `lanes` lanes, shifted right by the scalar `shift` >= 0, half rounded up."""
    if lanes == 1:
        return T.shift_right(x + half(shift), shift)
    return T.shift_right(x + T.broadcast(half(shift), lanes), T.broadcast(shift, lanes))


def exp2_fixed(x: Expr) -> Expr:
    """``2**-x`` of int32x16 ``x >= 0`` in units of ``2**-FRACTION_BITS``, in units of ``2**-EXP_BITS``."""
    fraction = T.bitwise_and(x, _all((1 << FRACTION_BITS) - 1))
    unit = _all(FRACTION_BITS)
    whole = T.min(T.shift_right(x, unit), _all(31))
    inner = T.shift_right(_all(_C3) * fraction, unit)
    inner = T.shift_right((_all(_C2) - inner) * fraction, unit)
    inner = T.shift_right((_all(_C1) - inner) * fraction, unit)
    return T.shift_right(_all(1 << EXP_BITS) - inner, whole)


def _upper_product(a: Expr, b: Expr) -> Expr:
    """Upper halves of the products of 16-bit lanes without a sign, of two int16x32."""
    return T.call_llvm_pure_intrin("int16x32", "llvm.x86.avx512.pmulhu.w.512", a, b)


def exp2_fixed_avx512(x: Expr) -> Expr:
    """As :func:`exp2_fixed`, in fewer instructions; the fraction times 64 makes upper halves of what is shifted there.

    The upper of the two 16-bit lanes of an element holds 0 in one factor of every product.
    """

    def words(value: Expr) -> Expr:
        return T.reinterpret("int16x32", value)

    def whole(value: Expr) -> Expr:
        return T.reinterpret("int32x16", value)

    unit = _all(FRACTION_BITS)
    scaled = T.shift_left(words(x), T.broadcast(T.int16(16 - FRACTION_BITS), 2 * LANES))
    inner = whole(_upper_product(words(_all(_C3)), scaled))
    inner = whole(_upper_product(words(_all(_C2) - inner), scaled))
    inner = T.shift_right((_all(_C1) - inner) * T.bitwise_and(x, _all((1 << FRACTION_BITS) - 1)), unit)
    # unlike LLVM's shift, the instruction returns 0 for a distance of 32 or more
    name = "llvm.x86.avx512.psrlv.d.512"
    return T.call_llvm_pure_intrin("int32x16", name, _all(1 << EXP_BITS) - inner, T.shift_right(x, unit))


@T.inline
def log2_fixed(total, result):
    """``result[0] = floor(log2(total / 2**EXP_BITS) * 2**FRACTION_BITS)`` of a scalar, by repeated squaring."""
    mantissa = T.alloc_buffer((1,), "int64", scope="local")
    whole = T.int32(31) - T.clz(total)
    mantissa[0] = T.shift_left(T.cast(total, "int64"), T.cast(T.int32(30) - whole, "int64"))
    result[0] = whole - EXP_BITS
    for _ in range(FRACTION_BITS):
        mantissa[0] = T.shift_right(mantissa[0] * mantissa[0], T.int64(30))
        result[0] = result[0] * 2 + T.cast(T.shift_right(mantissa[0], T.int64(31)), "int32")
        mantissa[0] = T.shift_right(mantissa[0], T.shift_right(mantissa[0], T.int64(31)))


@T.inline
def log2_fixed_vector(total, result):
    """As :func:`log2_fixed`, of an int32x16."""
    mantissa = T.alloc_buffer((1,), "int64x16", scope="local")
    whole = T.alloc_buffer((1,), "int32x16", scope="local")
    whole[0] = _all(31) - T.call_llvm_pure_intrin("int32x16", "llvm.ctlz.v16i32", total, T.bool(False))
    mantissa[0] = T.shift_left(T.cast(total, "int64x16"), T.cast(_all(30) - whole[0], "int64x16"))
    result[0] = whole[0] - _all(EXP_BITS)
    for _ in range(FRACTION_BITS):
        mantissa[0] = T.shift_right(mantissa[0] * mantissa[0], T.broadcast(T.int64(30), LANES))
        whole[0] = T.cast(T.shift_right(mantissa[0], T.broadcast(T.int64(31), LANES)), "int32x16")
        result[0] = result[0] * _all(2) + whole[0]
        mantissa[0] = T.shift_right(mantissa[0], T.cast(whole[0], "int64x16"))
