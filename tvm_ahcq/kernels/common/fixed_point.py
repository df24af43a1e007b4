"""Fixed-point logarithms and powers of two, as in :mod:`tvm_ahcq.quantizers.core.reference`, on int32 expressions."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.quantizers.core.reference import _EXP_C1 as _C1
from tvm_ahcq.quantizers.core.reference import _EXP_C2 as _C2
from tvm_ahcq.quantizers.core.reference import _EXP_C3 as _C3
from tvm_ahcq.quantizers.core.reference import EXP_BITS, FRACTION_BITS

from .vector import LANES, leading_zeros, vector_type


def _all(value: int, lanes: int = LANES) -> Expr:
    """The int32 `value` in every lane."""
    return T.broadcast(T.int32(value), lanes)


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


def _long(x: Expr, lanes: int) -> Expr:
    """int32 `x` in `lanes` lanes as int64."""
    return T.cast(x, vector_type("int64", lanes))


def _square(x: Expr, lanes: int) -> Expr:
    """Square of int64 `x` in `lanes` lanes, all below ``2**32``, as one product of 32-bit numbers."""
    low = T.bitwise_and(x, T.broadcast(T.int64(2**32 - 1), lanes))
    return low * low


def exp2_fixed_avx2(x: Expr) -> Expr:
    """As :func:`exp2_fixed`, of an int32x8, by upper halves of products of 16-bit lanes as with AVX-512.

    The factor of the last product has more than 16 bits: a multiple of ``2**FRACTION_BITS`` in it is multiplied apart.
    """

    def words(value: Expr) -> Expr:
        return T.reinterpret("int16x16", value)

    def times(factor: Expr, scaled: Expr) -> Expr:
        upper = T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmulhu.w", words(factor), scaled)
        return T.reinterpret("int32x8", upper)

    multiple = (_C1 - (1 << 16) >> FRACTION_BITS) + 1
    scaled = T.shift_left(words(x), T.broadcast(T.int16(16 - FRACTION_BITS), 16))
    inner = times(_all(_C2, 8) - times(_all(_C3, 8), scaled), scaled)
    inner = times(_all(_C1 - (multiple << FRACTION_BITS), 8) - inner, scaled)
    inner = inner + T.bitwise_and(x, _all((1 << FRACTION_BITS) - 1, 8)) * _all(multiple, 8)
    # unlike LLVM's shift, the instruction returns 0 for a distance of 32 or more
    name, distance = "llvm.x86.avx2.psrlv.d.256", T.shift_right(x, _all(FRACTION_BITS, 8))
    return T.call_llvm_pure_intrin("int32x8", name, _all(1 << EXP_BITS, 8) - inner, distance)


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
def log2_fixed_vector(total, result, lanes):
    """As :func:`log2_fixed`, of an int32 vector of `lanes` lanes."""
    mantissa = T.alloc_buffer((1,), vector_type("int64", lanes), scope="local")
    whole = T.alloc_buffer((1,), vector_type("int32", lanes), scope="local")
    whole[0] = T.broadcast(31, lanes) - leading_zeros(total, lanes)
    mantissa[0] = T.shift_left(_long(total, lanes), _long(T.broadcast(30, lanes) - whole[0], lanes))
    result[0] = whole[0] - T.broadcast(EXP_BITS, lanes)
    for _ in range(FRACTION_BITS):
        mantissa[0] = T.shift_right(_square(mantissa[0], lanes), T.broadcast(T.int64(30), lanes))
        whole[0] = T.cast(T.shift_right(mantissa[0], T.broadcast(T.int64(31), lanes)), vector_type("int32", lanes))
        result[0] = result[0] * T.broadcast(2, lanes) + whole[0]
        mantissa[0] = T.shift_right(mantissa[0], _long(whole[0], lanes))
