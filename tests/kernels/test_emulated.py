"""Kernels for 64-bit Arm, with and without dot-product instructions, run by qemu, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.tirx import Var

from tvm_ahcq.kernels import grouped_linear, log_attention
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.runtime.weights import pack
from tvm_ahcq.target import HostTarget, resolve_target

ANY = Var("rows", "int64")


@pytest.mark.parametrize(("bits", "operand_max"), [(4, 255), (8, 255), (4, 15), (8, 127)])
def test_grouped_linear_equals_the_reference(emulate, foreign: HostTarget, bits: int, operand_max: int):
    rng, n, sizes, lowest = np.random.default_rng(bits), 37, (80, 20), -(2**bits - 1) if bits < 8 else -128
    run = emulate(grouped_linear(ANY, LinearWorkload(n, 100, 2, bits, operand_max), "vnni16", foreign))
    for m in (1, 8):
        operands = rng.integers(0, operand_max + 1, (m, 100), dtype=np.uint8)
        operands[-1] = operand_max
        weight = rng.integers(lowest, min(-lowest, 127) + 1, (n, 100)).astype(np.int8)
        operands[0], weight[0], weight[1] = 0, lowest, -lowest - 1  # a code of 0 counts as -128
        multiplier = rng.normal(size=(2, n)).astype(np.float32)
        correction = rng.integers(-999, 999, (2, n)).astype(np.int32)
        bias, bounds = rng.normal(size=n).astype(np.float32), np.array([0, 80, 100], np.int32)
        arguments = (operands, pack(weight, "vnni16"), bounds, multiplier, correction, bias)
        expected = reference.grouped_linear(operands, weight, sizes, multiplier, correction, bias)
        assert np.array_equal(run(*arguments, shape=(m, n), dtype="float32"), expected)


@pytest.mark.parametrize("row_relative", [False, True])
def test_attention_equals_the_reference(emulate, foreign: HostTarget, row_relative: bool):
    rng = np.random.default_rng(1)
    scale = reference.attention_logit_scale((15 * 15 * 16, 0.01))
    c = reference.AttentionConstants(
        3,
        8,
        5,
        **scale,
        log_thresholds=np.array([9000, 5000, 2048], np.int32),
        table=np.array([0, 9, 70, 255], np.uint8),
        out_scale=np.float32(0.3),
        row_relative=row_relative,
    )
    shape = AttentionShape(1, Var("nq", "int64"), Var("nk", "int64"), 16, None, 3, row_relative=row_relative)
    run = emulate(log_attention(shape, foreign))
    q, k, v = (rng.integers(0, 16, (1, size, 16), dtype=np.uint8) for size in (5, 70, 70))
    constants = np.array([3, 8, 5, c.qk_shift, c.rel_shift, c.qk_multiplier, 0, 0, c.shift], np.int32)
    arguments = (q, k, v, constants, c.log_thresholds, c.table, np.array([c.out_scale], np.float32))
    got = run(*arguments, shape=q.shape, dtype="float32")
    assert np.array_equal(got, reference.log_attention(q, k, v, c))


@pytest.mark.parametrize(
    ("name", "instruction", "in_a_tile"), [("aarch64", "smlal", 16), ("aarch64-dotprod", "sdot", 24)]
)
def test_kernel_uses_the_instruction(name: str, instruction: str, in_a_tile: int):
    target = resolve_target(name)
    func = grouped_linear(ANY, LinearWorkload(64, 64, 1, 4), "vnni16", target)
    lines = tvm.compile(func, target=target.tvm_target()).mod.inspect_source("asm").splitlines()
    assert sum(instruction in line for line in lines) >= in_a_tile
