"""float32 activations to the table operands of non-uniform quantizers (HLUQ), by comparison with thresholds."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer, PrimFunc

from tvm_ahcq.kernels.common.vector import LANES, extent

_BLOCK = 4096
"""Elements of one parallel task."""

_LINEAR = 32
"""Largest number of thresholds for which comparing with each one beats a binary search."""


@T.inline
def _compare_with_all(x, thresholds, n, operands, out, first, size):
    """Each of `n` thresholds that is exceeded adds the step from one operand to the next."""
    jump = T.alloc_buffer((n,), "int32", scope="local")
    total = T.alloc_buffer((1,), "int32x16", scope="local")
    rest = T.alloc_buffer((1,), "int32", scope="local")
    for t in range(n):
        jump[t] = T.cast(operands[t + 1], "int32") - T.cast(operands[t], "int32")
    for i in range(size // LANES):
        total[0] = T.broadcast(T.cast(operands[0], "int32"), LANES)
        for t in T.unroll(n):
            total[0] = total[0] + T.Select(
                x[T.ramp(first + i * LANES, 1, LANES)] > T.broadcast(thresholds[t], LANES),
                T.broadcast(jump[t], LANES),
                T.broadcast(0, LANES),
            )
        out[T.ramp(first + i * LANES, 1, LANES)] = T.cast(total[0], "uint8x16")
    for i in range(size % LANES):
        rest[0] = T.cast(operands[0], "int32")
        for t in range(n):
            rest[0] = rest[0] + T.Select(x[first + size - 1 - i] > thresholds[t], jump[t], 0)
        out[first + size - 1 - i] = T.cast(rest[0], "uint8")


def _step(count: Expr, x: Expr, thresholds: Buffer, n: int, s: Expr, lanes: int) -> Expr:
    """`count` with the bit that step `s` decides, from the highest down: set where its threshold is exceeded."""
    highest = T.int32(1 << (n.bit_length() - 1))
    bit, last, one = (
        T.broadcast(value, lanes) if lanes > 1 else value
        for value in (T.shift_right(highest, s), T.int32(n), T.int32(1))
    )
    within = T.min(count + bit, last) - one
    return count + T.Select(T.And(count + bit <= last, x > thresholds[within]), bit, bit - bit)


@T.inline
def _search(x, thresholds, n, operands, out, first, size):
    """Branch-free binary search in every lane."""
    codes = T.alloc_buffer((1,), "int32x16", scope="local")
    rest = T.alloc_buffer((1,), "int32", scope="local")
    for i in range(size // LANES):
        codes[0] = T.broadcast(0, LANES)
        for s in T.unroll(n.bit_length()):
            codes[0] = _step(codes[0], x[T.ramp(first + i * LANES, 1, LANES)], thresholds, n, s, LANES)
        out[T.ramp(first + i * LANES, 1, LANES)] = operands[codes[0]]
    for i in range(size % LANES):
        rest[0] = 0
        for s in T.unroll(n.bit_length()):
            rest[0] = _step(rest[0], x[first + size - 1 - i], thresholds, n, s, 1)
        out[first + size - 1 - i] = operands[rest[0]]


def encode_intervals(m: int | Expr, k: int, n_thresholds: int) -> PrimFunc:
    """Kernel of :func:`tvm_ahcq.quantizers.core.reference.encode_intervals`.

    Its arguments are, in order, ``x`` float32 ``(M, K)``; ``thresholds`` float32 ``(n,)``, ascending; ``operands``
    uint8 ``(n + 1,)``; and the output, uint8 ``(M, K)``.

    Parameters
    ----------
    m : int or Expr
        Rows; anything but an int makes a kernel for any number of rows.
    k : int
        Columns.
    n_thresholds : int
        Number of thresholds, at least 1.
    """
    rows, n = extent(m, "m"), n_thresholds
    encode = _compare_with_all if n <= _LINEAR else _search
    tasks = (rows * k + _BLOCK - 1) // _BLOCK

    @T.prim_func(s_tir=True)
    def main(x_handle: T.handle, thresholds_handle: T.handle, operands_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_encode_intervals", "tirx.noalias": True, "tirx.is_scheduled": True})
        x_buffer = T.match_buffer(x_handle, (rows, k), "float32", align=4)
        thresholds = T.match_buffer(thresholds_handle, (n,), "float32", align=4)
        operands = T.match_buffer(operands_handle, (n + 1,), "uint8", align=1)
        out_buffer = T.match_buffer(out_handle, (rows, k), "uint8", align=1)
        x = T.decl_buffer((rows * k,), "float32", data=x_buffer.data, align=4)
        out = T.decl_buffer((rows * k,), "uint8", data=out_buffer.data, align=1)
        for task in T.parallel(tasks):
            encode(x, thresholds, n, operands, out, task * _BLOCK, T.min(rows * k - task * _BLOCK, _BLOCK))

    return main
