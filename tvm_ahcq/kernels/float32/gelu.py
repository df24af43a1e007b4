"""GELU with the error function, float32, in vectors on every machine."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from tvm_ahcq.kernels.common.vector import LANES, extent

_BLOCK = 4096
"""Elements of one parallel task."""

_LIMIT = 4.0
_NUMERATOR = (1.1283789873, 0.1962493211, 0.0534675233, 0.00400366029, 0.000288041745, 1.97482723e-06)
_DENOMINATOR = (1.0, 0.507252574, 0.116476566, 0.015444451, 0.00121636339, 3.74808515e-05)
"""``erf(x) = x * numerator(x**2) / denominator(x**2)`` up to 4e-7 for ``|x| <= 4``, by weighted least squares; beyond
that erf is 1 in float32."""


def gelu_of(x: Expr, lanes: int) -> Expr:
    """``x / 2 * (1 + erf(x / sqrt(2)))`` of float32 `x` in so many lanes."""

    def constant(value: float) -> Expr:
        return T.broadcast(T.float32(value), lanes) if lanes > 1 else T.float32(value)

    def polynomial(coefficients: tuple[float, ...], t: Expr) -> Expr:
        total = constant(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            total = total * t + constant(coefficient)
        return total

    u = x * constant(0.5**0.5)
    erf = u * polynomial(_NUMERATOR, u * u) / polynomial(_DENOMINATOR, u * u)
    inside = x * constant(0.5) * (constant(1) + erf)
    return T.Select(u >= constant(_LIMIT), x, T.Select(u <= constant(-_LIMIT), constant(0), inside))


def gelu(m: int | Expr, k: int) -> PrimFunc:
    """Kernel of GELU over float32 ``(M, K)``; its arguments are the input and the output.

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    k : int
        Columns.
    """
    rows = extent(m, "m")
    count = rows * k

    @T.prim_func(s_tir=True)
    def main(x_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_gelu", "tirx.noalias": True, "tirx.is_scheduled": True})
        x_rows = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        out_rows = T.match_buffer(out_handle, (rows, k), "float32", align=4)
        x = T.decl_buffer((count,), "float32", data=x_rows.data, align=4)
        out = T.decl_buffer((count,), "float32", data=out_rows.data, align=4)
        for task in T.parallel((count + _BLOCK - 1) // _BLOCK):
            for i in range(T.min(count - task * _BLOCK, _BLOCK) // LANES):
                out[T.ramp(task * _BLOCK + i * LANES, 1, LANES)] = gelu_of(
                    x[T.ramp(task * _BLOCK + i * LANES, 1, LANES)], LANES
                )
            for i in range(T.min(count - task * _BLOCK, _BLOCK) % LANES):
                out[task * _BLOCK + T.min(count - task * _BLOCK, _BLOCK) - 1 - i] = gelu_of(
                    x[task * _BLOCK + T.min(count - task * _BLOCK, _BLOCK) - 1 - i], 1
                )

    return main
