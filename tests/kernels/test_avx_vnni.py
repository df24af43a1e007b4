"""Kernels for AVX-VNNI against the reference, its instruction replaced by AVX2's where the machine lacks it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Var

from tvm_ahcq.kernels import grouped_linear, log_attention
from tvm_ahcq.kernels.attention.avx2_products import SPARSE
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.common.avx2 import BYTES, dot_bytes, pair_products, sum_pairs
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.runtime.weights import pack
from tvm_ahcq.target import HostTarget, host_features, resolve_target

from .attention.test_dispatch import check, codes, dynamic, site
from .conftest import Run, compiled

ANY = Var("rows", "int64")


def emulated_dot(total: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """``dot_bytes`` by AVX2: with ``w = 2 * (w >> 1) + (w & 1)``, sums of two products stay within 16 bits."""
    one = T.broadcast(T.int8(1), BYTES)
    upper = sum_pairs(pair_products(unsigned, T.shift_right(signed, one)))
    lower = sum_pairs(pair_products(unsigned, T.bitwise_and(signed, one)))
    return total + upper + upper + lower


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> HostTarget:
    """AVX-VNNI; its kernels on AVX2 where that is all there is."""
    real, stand_in = resolve_target("avx-vnni"), resolve_target("avx2")
    if host_features().issuperset(real.cpu_features):
        return real
    if not host_features().issuperset(stand_in.cpu_features):
        pytest.skip("this machine cannot run code for avx2")
    monkeypatch.setattr(dot_bytes, "__code__", emulated_dot.__code__)  # kernels hold the function itself
    return HostTarget(real.name, stand_in.config, stand_in.cpu_features, real.isa)


@pytest.fixture
def build(target: HostTarget) -> Callable[[tvm.tirx.PrimFunc], Run]:
    return lambda func: compiled(target, func)


@pytest.mark.parametrize(("bits", "operand_max"), [(4, 255), (8, 255), (4, 15)])
def test_grouped_linear_equals_the_reference(build, target: HostTarget, bits: int, operand_max: int) -> None:
    rng, n, sizes, lowest = np.random.default_rng(bits), 37, (80, 20), -(2**bits - 1) if bits < 8 else -128
    run = build(grouped_linear(ANY, LinearWorkload(n, 100, 2, bits, operand_max), "vnni16", target))
    for m in (1, 8, 101):
        operands = rng.integers(0, operand_max + 1, (m, 100), dtype=np.uint8)
        operands[-1] = operand_max
        weight = rng.integers(lowest, min(-lowest, 127) + 1, (n, 100)).astype(np.int8)
        weight[0], weight[1] = lowest, -lowest - 1
        multiplier, correction = rng.normal(size=(2, n)).astype(np.float32), rng.integers(-999, 999, (2, n))
        bias, bounds = rng.normal(size=n).astype(np.float32), np.array([0, 80, 100], np.int32)
        correction = correction.astype(np.int32)
        arguments = (operands, pack(weight, "vnni16"), bounds, multiplier, correction, bias)
        expected = reference.grouped_linear(operands, weight, sizes, multiplier, correction, bias)
        assert np.array_equal(run(*arguments, shape=(m, n), dtype="float32"), expected)


@pytest.mark.parametrize(("d", "value_d", "bits"), [(16, 0, 4), (20, 0, 6), (64, 16, 4), (32, 0, 5)], ids=str)
@pytest.mark.parametrize("row_relative", [False, True])
def test_attention_equals_the_reference(
    build, target: HostTarget, d: int, value_d: int, bits: int, row_relative: bool
) -> None:
    rng = np.random.default_rng(d)
    shape = AttentionShape(*dynamic(), d, None, 15, bits=bits, row_relative=row_relative, value_d=value_d)
    run = build(log_attention(shape, target))
    for heads, nq, nk, spread in ((1, 1, 1, 3.0), (2, 7, 40, 0.3), (1, 9, SPARSE + 77, 6.0)):
        c = site(rng, d, 15, bits, False, spread, row_relative=row_relative)
        q, k = codes(rng, bits, heads, nq, d), codes(rng, bits, heads, nk, d)
        check(run, c, q, k, codes(rng, bits, heads, nk, value_d or d))


def test_relative_positions_equal_the_reference(build, target: HostTarget) -> None:
    rng, (height, width), d = np.random.default_rng(0), (7, 5), 20
    tokens = height * width
    run = build(log_attention(AttentionShape(2, tokens, tokens, d, (height, width), 15, bits=4), target))
    tables = tuple(rng.integers(-128, 128, (2 * side - 1, d)).astype(np.int8) for side in (height, width))
    check(run, site(rng, d, 15, 4, True), *(codes(rng, 4, 2, tokens, d) for _ in range(3)), tables)


@pytest.mark.parametrize("kernel", ["grouped_linear", "log_attention"])
def test_code_for_the_target_has_the_instruction_in_256_bits(kernel: str) -> None:
    target = resolve_target("avx-vnni")
    funcs = {
        "grouped_linear": lambda: grouped_linear(ANY, LinearWorkload(64, 64, 1, 4), "vnni16", target),
        "log_attention": lambda: log_attention(AttentionShape(*dynamic(), 32, None, 15, bits=4), target),
    }
    assembly = tvm.compile(funcs[kernel](), target=target.tvm_target()).mod.inspect_source("asm")
    assert len(re.findall(r"vpdpbusd\s.*ymm", assembly)) >= 8 and "zmm" not in assembly
