"""Epilogues of a grouped-scale GEMM: operators applied to the outputs in registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.script import tirx as T

from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.kernels.encode.affine import uniform_codes
from tvm_ahcq.target import HostTarget

SCRATCH = 32
"""float32 and int32 elements that an epilogue may prepare for a task."""

MAX_THRESHOLDS = SCRATCH - 1
"""Most thresholds of :func:`intervals`: one element is kept for a threshold that nothing exceeds."""


@dataclass(frozen=True)
class Epilogue:
    """Inline functions that store the outputs of a grouped-scale GEMM.

    Attributes
    ----------
    prepare : callable
        Inline function ``(out, floats, ints)``, called once a task; `out` holds the buffers that the epilogue reads and
        writes, the others are `SCRATCH` elements of scratch memory.
    store : callable
        Inline function ``(out, floats, ints, y, row, block)``: stores float32x16 `y`, the outputs of `row` from
        ``16 * block`` on. May be called again with the same values.
    """

    prepare: Callable[..., None]
    store: Callable[..., None]


@T.inline
def _nothing(out, floats, ints):
    floats[0] = T.float32(0)


@T.inline
def _store_plain(out, floats, ints, y, row, block):
    out[row, T.ramp(block * LANES, 1, LANES)] = y


PLAIN = Epilogue(_nothing, _store_plain)
"""The outputs are stored as they are; the only epilogue for outputs that are no multiple of 16."""


def adding(windows: Windows | None) -> Epilogue:
    """``sum = residual + y``; `out` is (residual, sum), float32 matrices.

    With `windows`, the GEMM's rows are in window order, those of the matrices in image order.
    """

    @T.inline
    def store(out, floats, ints, y, row, block):
        if windows is None:
            out[1][row, T.ramp(block * LANES, 1, LANES)] = out[0][row, T.ramp(block * LANES, 1, LANES)] + y
        else:
            if windows.inside(row):
                out[1][windows.image_row(row), T.ramp(block * LANES, 1, LANES)] = (
                    out[0][windows.image_row(row), T.ramp(block * LANES, 1, LANES)] + y
                )

    return Epilogue(_nothing, store)


def _lookup(table, index: Expr, n: int, dtype: str) -> Expr:
    """``table[index]`` in every lane of an int32x16 below 32, by AVX-512's permutations of registers."""
    suffix, lanes = ("ps", "float32x16") if dtype == "float32" else ("d", "int32x16")
    low = table[T.ramp(0, 1, LANES)]
    if n < LANES:
        name = "permvar.sf.512" if dtype == "float32" else "permvar.si.512"
        return T.call_llvm_pure_intrin(lanes, f"llvm.x86.avx512.{name}", low, index)
    high = table[T.ramp(LANES, 1, LANES)]
    return T.call_llvm_pure_intrin(lanes, f"llvm.x86.avx512.vpermi2var.{suffix}.512", low, index, high)


def intervals(n: int, target: HostTarget) -> Epilogue:
    """Table operands by interval, as :func:`tvm_ahcq.quantizers.core.reference.encode_intervals`.

    `out` is (thresholds float32 ``(n,)``, operands uint8 ``(n + 1,)``, matrix uint8); `n` is at most `MAX_THRESHOLDS`.
    """
    if target.isa in ("avx2", "avxvnni"):
        return _intervals_by_halves(n)
    searching = "avx512f" in target.cpu_features
    steps = n.bit_length()

    def bit(s: Expr) -> Expr:
        """Bit of the number of thresholds exceeded that step `s` of the search decides, in every lane."""
        return T.broadcast(T.shift_right(T.int32(1 << (steps - 1)), s), LANES)

    @T.inline
    def prepare(out, floats, ints):
        if searching:  # place c holds threshold c - 1, so that place and number of thresholds exceeded agree
            for t in range(SCRATCH):
                floats[t] = T.if_then_else(
                    T.And(t > 0, t <= n), out[0][T.min(T.max(t - 1, 0), n - 1)], T.float32(float("inf"))
                )
                ints[t] = T.cast(out[1][T.min(t, n)], "int32")
        else:
            for t in range(n):
                floats[t] = out[0][t]
                ints[t] = T.cast(out[1][t + 1], "int32") - T.cast(out[1][t], "int32")

    @T.inline
    def store(out, floats, ints, y, row, block):
        operands = T.alloc_buffer((1,), "int32x16", scope="local")
        if searching:
            operands[0] = T.Select(y > T.broadcast(floats[1 << (steps - 1)], LANES), bit(0), T.broadcast(0, LANES))
            for s in T.unroll(steps - 1):
                operands[0] = operands[0] + T.Select(
                    y > _lookup(floats, operands[0] + bit(s + 1), n, "float32"), bit(s + 1), T.broadcast(0, LANES)
                )
            operands[0] = _lookup(ints, operands[0], n, "int32")
        else:
            operands[0] = T.broadcast(T.cast(out[1][0], "int32"), LANES)
            for t in range(n):
                operands[0] = operands[0] + T.Select(
                    y > T.broadcast(floats[t], LANES), T.broadcast(ints[t], LANES), T.broadcast(0, LANES)
                )
        out[2][row, T.ramp(block * LANES, 1, LANES)] = T.cast(operands[0], "uint8x16")

    return Epilogue(prepare, store)


_SEARCHED = 15
"""Thresholds that four steps of a binary search tell apart; each step has at most eight, one AVX2 register."""


def _permute(table: Expr, index: Expr) -> Expr:
    """``table[index]`` in every lane, float32x8 and int32x8 below 8, with AVX2."""
    return T.call_llvm_pure_intrin("float32x8", "llvm.x86.avx2.permps", table, index)


def _shuffle(table: Expr, index: Expr) -> Expr:
    """``table[index]`` in every lane, uint8x16 and uint8x16 below 16."""
    return T.call_llvm_pure_intrin("uint8x16", "llvm.x86.ssse3.pshuf.b.128", table, index)


@T.inline
def _search(tables, steps, exceeded, half, values):
    """Number of thresholds that each of eight values exceeds."""
    exceeded[half] = T.cast(values > T.broadcast(tables[0], 8), "int32x8")
    for s in T.unroll(steps - 1):
        exceeded[half] = (
            exceeded[half]
            + exceeded[half]
            + T.cast(values > _permute(tables[T.ramp(s * 8 + 8, 1, 8)], exceeded[half]), "int32x8")
        )


def _intervals_by_halves(n: int) -> Epilogue:
    """:func:`intervals` with AVX2: a binary search in eight lanes, and a byte shuffle that looks the operands up.

    Step `s` compares with one of ``2**s`` thresholds, by the bits found so far. Thresholds from 15 on are compared one
    by one, and add the differences of their operands.
    """
    searched = min(n, _SEARCHED)
    steps = searched.bit_length()

    @T.inline
    def prepare(out, floats, ints):
        for s, p in T.grid(steps, 8):
            place = T.meta_var(T.shift_left(2 * p + 1, steps - 1 - s))
            floats[s * 8 + p] = T.if_then_else(
                place <= searched, out[0][T.min(place, searched) - 1], T.float32(float("inf"))
            )
        for i in range(4):
            ints[i] = 0
            for j in range(4):
                ints[i] = ints[i] + T.shift_left(T.cast(out[1][T.min(4 * i + j, searched)], "int32"), 8 * j)

    @T.inline
    def store(out, floats, ints, y, row, block):
        exceeded = T.alloc_buffer((2,), "int32x8", scope="local")
        more = T.alloc_buffer((1,), "int32x16", scope="local")
        _search(floats, steps, exceeded, 0, T.vectorlow("float32x8", y))
        _search(floats, steps, exceeded, 1, T.vectorhigh("float32x8", y))
        more[0] = T.broadcast(0, LANES)
        for t in range(searched, n):
            more[0] = more[0] + T.Select(
                y > T.broadcast(out[0][t], LANES),
                T.broadcast(T.cast(out[1][t + 1], "int32") - T.cast(out[1][t], "int32"), LANES),
                T.broadcast(0, LANES),
            )
        out[2][row, T.ramp(block * LANES, 1, LANES)] = _shuffle(
            T.reinterpret("uint8x16", ints[T.ramp(0, 1, 4)]),
            T.cast(T.vectorcombine("int32x16", exceeded[0], exceeded[1]), "uint8x16"),
        ) + T.cast(more[0], "uint8x16")

    return Epilogue(prepare, store)


def codes(bits: int) -> Epilogue:
    """Codes of a uniform quantizer; `out` is (scale float32 ``(1,)``, zero point int32 ``(1,)``, matrix uint8)."""

    @T.inline
    def prepare(out, floats, ints):
        floats[0] = out[0][0]
        floats[1] = T.cast(out[1][0], "float32")

    @T.inline
    def store(out, floats, ints, y, row, block):
        out[2][row, T.ramp(block * LANES, 1, LANES)] = uniform_codes(y, floats[0], floats[1], 2**bits - 1, LANES)

    return Epilogue(prepare, store)


def heads(tokens: int, count: int, d: int, bits: int) -> Epilogue:
    """Uniform codes of queries, keys and values, head by head.

    `out` is (scales, zero points, codes): three float32 ``(1,)``, three int32 ``(1,)``, and uint8
    ``(3, B * count, tokens, d)``; `d` is a multiple of 8, ``count * d`` of 16. Row and outputs of the GEMM are
    ``(B, tokens)`` and ``(3, count, d)``.
    """

    @T.inline
    def prepare(out, floats, ints):
        floats[0] = out[0][0][0]
        floats[1] = out[0][1][0]
        floats[2] = out[0][2][0]
        floats[4] = T.cast(out[1][0][0], "float32")
        floats[5] = T.cast(out[1][1][0], "float32")
        floats[6] = T.cast(out[1][2][0], "float32")

    @T.inline
    def store_half(found, part, row, column, half):
        found[part, row // tokens * count + column // d % count, row % tokens, T.ramp(column % d, 1, 8)] = half

    @T.inline
    def store(out, floats, ints, y, row, block):
        part = block // (count * d // LANES)
        found = uniform_codes(y, floats[part], floats[4 + part], 2**bits - 1, LANES)
        if d % LANES == 0:
            out[2][
                part,
                row // tokens * count + block // (d // LANES) % count,
                row % tokens,
                T.ramp(block % (d // LANES) * LANES, 1, LANES),
            ] = found
        else:
            store_half(out[2], part, row, block * LANES, T.vectorlow("uint8x8", found))
            store_half(out[2], part, row, block * LANES + LANES // 2, T.vectorhigh("uint8x8", found))

    return Epilogue(prepare, store)
