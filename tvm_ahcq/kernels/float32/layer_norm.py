"""Layer normalisation over the last axis, float32."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ahcq.kernels.common.parallel import SERIAL_ELEMENTS
from tvm_ahcq.kernels.common.vector import LANES, extent

_BLOCK_ROWS = 32


def _value(x: Expr, mean: Expr) -> Expr:
    return x


def _square(x: Expr, mean: Expr) -> Expr:
    return (x - mean) * (x - mean)


@dataclass(frozen=True)
class RowNorm:
    """Layer normalisation of rows of `k` channels.

    Attributes
    ----------
    k : int
        Channels.
    eps : float
        Added to the variance.
    gamma, beta : Buffer
        float32 ``(k,)``.
    """

    k: int
    eps: float
    gamma: Buffer
    beta: Buffer


@T.inline
def _row_sum(term, x, row, k, mean, total):
    """``total[0] = `` sum of `term` over the row."""
    lanes = T.alloc_buffer((LANES,), "float64", scope="local")
    lanes[T.ramp(0, 1, LANES)] = T.broadcast(T.float64(0), LANES)
    for i in range(k // LANES):
        lanes[T.ramp(0, 1, LANES)] = lanes[T.ramp(0, 1, LANES)] + term(
            T.cast(x[row, T.ramp(i * LANES, 1, LANES)], "float64x16"), T.broadcast(mean, LANES)
        )
    for i in range(k % LANES):
        lanes[i] = lanes[i] + term(T.cast(x[row, k // LANES * LANES + i], "float64"), mean)
    total[0] = lanes[0]
    for i in range(LANES - 1):
        total[0] = total[0] + lanes[i + 1]


@T.inline
def normalise_row(norm, x, row, out, out_row):
    """Layer normalisation of one row of ``x`` to one of ``out``."""
    total = T.alloc_buffer((1,), "float64", scope="local")
    mean = T.alloc_buffer((1,), "float64", scope="local")
    scale = T.alloc_buffer((1,), "float64", scope="local")
    _row_sum(_value, x, row, norm.k, T.float64(0), total)
    mean[0] = total[0] / T.float64(norm.k)
    _row_sum(_square, x, row, norm.k, mean[0], total)
    scale[0] = T.float64(1) / T.sqrt(total[0] / T.float64(norm.k) + T.float64(norm.eps))
    for j in range(norm.k):
        out[out_row, j] = T.cast(
            (T.cast(x[row, j], "float64") - mean[0]) * scale[0] * T.cast(norm.gamma[j], "float64")
            + T.cast(norm.beta[j], "float64"),
            "float32",
        )


def layer_norm(m: int | Expr, k: int, eps: float) -> PrimFunc:
    """Kernel of ``(x - mean) / sqrt(variance + eps) * gamma + beta``, moments over each row.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``gamma`` and ``beta`` float32 ``(K,)``; and the output,
    float32 ``(M, K)``. Everything is computed in float64 and rounded to float32 once, so that the order of additions
    does not show: quantizers follow, and executors must agree on their codes.

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    k : int
        Channels.
    eps : float
        Added to the variance.
    """
    rows = extent(m, "m")

    @T.prim_func(s_tir=True)
    def main(x_handle: T.handle, gamma_handle: T.handle, beta_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_layer_norm", "tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        gamma = T.match_buffer(gamma_handle, (k,), "float32", align=4)
        beta = T.match_buffer(beta_handle, (k,), "float32", align=4)
        out = T.match_buffer(out_handle, (rows, k), "float32", align=4)
        norm = T.meta_var(RowNorm(k, eps, gamma, beta))
        if rows * k <= SERIAL_ELEMENTS:
            for row in range(rows):
                normalise_row(norm, x, row, out, row)
        else:
            for task in T.parallel((rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS):
                for i in range(T.min(rows - task * _BLOCK_ROWS, _BLOCK_ROWS)):
                    row = task * _BLOCK_ROWS + i
                    normalise_row(norm, x, row, out, row)

    return main
