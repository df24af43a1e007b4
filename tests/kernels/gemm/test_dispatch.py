"""The grouped GEMM against the integer semantics, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.tirx import Var

from tvm_ahcq.errors import TargetError
from tvm_ahcq.kernels import grouped_linear
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.quantizers.core.narrow_sums import INT16_MAX, exact_steps
from tvm_ahcq.runtime.weights import pack
from tvm_ahcq.target import HostTarget, host_features, resolve_target

ANY = Var("rows", "int64")


def case(rng: np.random.Generator, m: int, n: int, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Operands, weight, multiplier, correction, bias."""
    k, groups = sum(sizes), len(sizes)
    return [
        rng.integers(0, 256, (m, k), dtype=np.uint8),
        rng.integers(-128, 128, (n, k)).astype(np.int8),
        rng.normal(size=(groups, n)).astype(np.float32),
        rng.integers(-(2**20), 2**20, (groups, n)).astype(np.int32),
        rng.normal(size=n).astype(np.float32),
    ]


def check(run, layout: str, sizes: tuple[int, ...], operands, weight, multiplier, correction, bias) -> None:
    shape = (len(operands), len(weight))
    bounds = np.cumsum([0, *sizes]).astype(np.int32)
    got = run(operands, pack(weight, layout), bounds, multiplier, correction, bias, shape=shape, dtype="float32")
    expected = reference.grouped_linear(operands, weight, sizes, multiplier, correction, bias)
    assert np.array_equal(got, expected)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 150),
    sizes=st.lists(st.integers(1, 12).map(lambda i: 4 * i), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_equals_the_reference(build, target: HostTarget, n: int, sizes: tuple[int, ...], seed: int):
    rng = np.random.default_rng(seed)
    run = build(grouped_linear(ANY, LinearWorkload(n, sum(sizes), len(sizes)), target.layout, target))
    for m in (1, 5, 6, 7, 13, 97, int(rng.integers(98, 200))):
        check(run, target.layout, sizes, *case(rng, m, n, sizes))


@pytest.mark.parametrize("n", [16, 32, 48, 80, 112])
def test_every_panel_width_equals_the_reference(build, target: HostTarget, n: int):
    run = build(grouped_linear(ANY, LinearWorkload(n, 20, 2), target.layout, target))
    check(run, target.layout, (8, 12), *case(np.random.default_rng(n), 25, n, (8, 12)))


def test_constant_row_count_equals_the_reference(build, target: HostTarget):
    run = build(grouped_linear(10, LinearWorkload(20, 8, 1), target.layout, target))
    check(run, target.layout, (8,), *case(np.random.default_rng(0), 10, 20, (8,)))


def test_extreme_codes_do_not_saturate(build, target: HostTarget):
    """Sums of two products of 255 * -128 leave int16: an instruction that saturates there would show."""
    sizes = (64, 64)
    run = build(grouped_linear(ANY, LinearWorkload(33, 128, 2), target.layout, target))
    _, _, multiplier, correction, bias = case(np.random.default_rng(1), 9, 33, sizes)
    for code in (0, 255):
        for value in (-128, 127):
            operands, weight = np.full((9, 128), code, np.uint8), np.full((33, 128), value, np.int8)
            check(run, target.layout, sizes, operands, weight, multiplier, correction, bias)


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_narrow_weights_do_not_overflow_narrow_sums(build, target: HostTarget, bits: int):
    """Weights of few bits may be summed in 16 bits for a while; the largest ones show whether that is too long."""
    sizes, largest = (100, 64), 2**bits - 1
    run = build(grouped_linear(ANY, LinearWorkload(17, 164, 2, bits), target.layout, target))
    _, _, multiplier, correction, bias = case(np.random.default_rng(bits), 5, 17, sizes)
    for value in (-largest, largest):
        operands, weight = np.full((5, 164), 255, np.uint8), np.full((17, 164), value, np.int8)
        check(run, target.layout, sizes, operands, weight, multiplier, correction, bias)


@pytest.mark.parametrize(("n", "sizes"), [(16, (288,)), (17, (292, 576)), (48, (4, 284, 12)), (33, (644,))], ids=str)
@pytest.mark.parametrize("operand_max", [1, 15, 126, 255])
def test_sums_as_deep_as_operands_allow(build, target: HostTarget, n: int, sizes: tuple[int, ...], operand_max: int):
    """Depths from widths: the greatest operand with weights at both extremes."""
    work = LinearWorkload(n, sum(sizes), len(sizes), 4, operand_max)
    run = build(grouped_linear(ANY, work, target.layout, target))
    rng = np.random.default_rng(operand_max)
    for m in (1, 7):
        operands, weight, *rest = case(rng, m, n, sizes)
        operands = np.minimum(operands, operand_max)
        for value in (-15, 15):
            check(run, target.layout, sizes, np.full_like(operands, operand_max), np.full_like(weight, value), *rest)
        check(run, target.layout, sizes, operands, rng.integers(-15, 16, weight.shape).astype(np.int8), *rest)


def full_sums(n: int, channels: int, operand_max: int) -> np.ndarray:
    """4-bit weights whose one-sided sums are the largest that fit 16 bits with operands up to `operand_max`."""
    total, one_sided = INT16_MAX // operand_max, np.zeros(channels // 2, np.int8)
    one_sided[: total // 15] = 15
    one_sided[total // 15] = total % 15
    pairs = np.stack([one_sided.reshape(-1, 2), -one_sided.reshape(-1, 2)], axis=1)
    return pairs.reshape(1, channels).repeat(n, 0)


@pytest.mark.parametrize(("n", "channels"), [(16, 300), (20, 296), (48, 516)])
@pytest.mark.parametrize("operand_max", [15, 100, 127])
def test_depth_proven_by_weights_holds_at_its_limit(build, target: HostTarget, n: int, channels: int, operand_max: int):
    weight = full_sums(n, channels, operand_max)
    assert exact_steps(weight, operand_max) == channels // 4
    work = LinearWorkload(n, channels, 1, 4, operand_max, channels // 4)
    run = build(grouped_linear(ANY, work, target.layout, target))
    _, _, *rest = case(np.random.default_rng(n), 7, n, (channels,))
    for chosen in (weight[0] > 0, weight[0] < 0, weight[0] != 0):
        operands = np.where(chosen, operand_max, 0).astype(np.uint8)[None].repeat(7, 0)
        check(run, target.layout, (channels,), operands, weight, *rest)


def test_groups_are_added_in_order_with_one_rounding_each(build, target: HostTarget):
    """1e8 - 1e8 + small keeps the small part only if the groups are added first to last."""
    sizes = (4, 4, 4)
    run = build(grouped_linear(ANY, LinearWorkload(17, 12, 3), target.layout, target))
    operands, weight = np.full((3, 12), 1, np.uint8), np.ones((17, 12), np.int8)
    multiplier = np.repeat(np.array([[1e8], [-1e8], [1 / 3]], np.float32), 17, 1)
    zeros, bias = np.zeros((3, 17), np.int32), np.zeros(17, np.float32)
    check(run, target.layout, sizes, operands, weight, multiplier, zeros, bias)


@pytest.mark.parametrize("name", ["native", "avx2", "aarch64"])
def test_rows_layout_works_on_every_target(name: str):
    """Compiled for each; run where this machine can."""
    target = resolve_target(name)
    kernel = tvm.compile(grouped_linear(ANY, LinearWorkload(21, 56, 2), "rows", target), target=target.tvm_target())
    if not host_features().issuperset(target.cpu_features):
        pytest.skip(f"this machine cannot run code for {name}")

    def run(*arrays: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        out = tvm.runtime.tensor(np.zeros(shape, dtype))
        kernel(*map(tvm.runtime.tensor, arrays), out)
        return out.numpy()

    check(run, "rows", (20, 36), *case(np.random.default_rng(2), 70, 21, (20, 36)))


def test_vnni_kernel_uses_the_instruction():
    target = resolve_target("avx512-vnni")
    kernel = tvm.compile(grouped_linear(ANY, LinearWorkload(64, 64, 1), "vnni16", target), target=target.tvm_target())
    lines = kernel.mod.inspect_source("asm").splitlines()
    assert sum("vpdpbusd" in line and "zmm" in line for line in lines) >= 12


def test_layout_that_the_target_cannot_read_is_refused():
    with pytest.raises(TargetError, match="pack with layout 'rows'"):
        grouped_linear(ANY, LinearWorkload(64, 64, 1), "vnni16", resolve_target("generic"))
