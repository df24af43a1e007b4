"""Log-domain attention against the integer semantics, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.tirx import Var

from tvm_ahcq.kernels import log_attention
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.target import HostTarget, resolve_target

CONSTANTS = (
    "q_zero",
    "k_zero",
    "v_zero",
    "qk_shift",
    "rel_shift",
    "qk_multiplier",
    "rel_h_multiplier",
    "rel_w_multiplier",
    "shift",
)


def dynamic() -> tuple[Var, Var, Var]:
    return Var("b", "int64"), Var("nq", "int64"), Var("nk", "int64")


def site(
    rng: np.random.Generator,
    d: int,
    n: int,
    bits: int,
    relative: bool,
    spread: float = 3.0,
    row_relative: bool = False,
):
    """Constants of a site whose base-2 logits have about the standard deviation `spread`."""
    top = 2**bits - 1
    unit = spread / (np.sqrt(d) * (top + 1) ** 2 / 12)
    rel = (top * 128 * d, 1 / (top * 25 * np.sqrt(d)), 0.7 / (top * 25 * np.sqrt(d))) if relative else None
    thresholds = np.sort(rng.uniform(0, 14, n))[::-1]
    return reference.AttentionConstants(
        *(int(zero) for zero in rng.integers(0, top + 1, 3)),
        **reference.attention_logit_scale((top * top * d, unit), rel),
        log_thresholds=np.floor(thresholds * 2**reference.FRACTION_BITS).astype(np.int32),
        table=np.concatenate([[0], np.sort(rng.integers(0, 256, n - 1)), [255]]).astype(np.uint8),
        out_scale=np.float32(rng.uniform(1e-3, 1)),
        row_relative=row_relative,
    )


def check(run, c: reference.AttentionConstants, q, k, v, rel: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    constants = np.array([getattr(c, name) for name in CONSTANTS], np.int32)
    scale = np.array([c.out_scale], np.float32)
    shape = (*q.shape[:2], v.shape[2])
    got = run(q, k, v, *rel, constants, c.log_thresholds, c.table, scale, shape=shape, dtype="float32")
    assert np.array_equal(got, reference.log_attention(q, k, v, c, *rel))
    return got


def codes(rng: np.random.Generator, bits: int, *shape: int) -> np.ndarray:
    return rng.integers(0, 2**bits, shape, dtype=np.uint8)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    d=st.sampled_from([4, 16, 18, 20, 32, 64, 80]),
    bits=st.integers(2, 8),
    n=st.sampled_from([1, 3, 14, 15, 16, 31]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_number_of_heads_queries_and_keys_equals_the_reference(build, target, d: int, bits: int, n: int, seed: int):
    rng = np.random.default_rng(seed)
    run = build(log_attention(AttentionShape(*dynamic(), d, None, n, bits=bits), target))
    for heads, nq, nk in [(1, 1, 1), (2, 7, 5), (1, 13, 130), (3, 6, 64), (1, 2, int(rng.integers(65, 300)))]:
        c = site(rng, d, n, bits, relative=False)
        check(run, c, *(codes(rng, bits, heads, size, d) for size in (nq, nk, nk)))


@pytest.mark.parametrize(("d", "value_d"), [(16, 4), (64, 16), (20, 32)], ids=str)
@pytest.mark.parametrize("row_relative", [False, True])
def test_values_of_another_width_equal_the_reference(build, target, d: int, value_d: int, row_relative: bool):
    rng = np.random.default_rng(d)
    shape = AttentionShape(*dynamic(), d, None, 15, bits=4, row_relative=row_relative, value_d=value_d)
    run = build(log_attention(shape, target))
    for heads, nq, nk in [(1, 1, 1), (2, 7, 40), (1, 13, 130)]:
        c = site(rng, d, 15, 4, False, row_relative=row_relative)
        check(run, c, codes(rng, 4, heads, nq, d), codes(rng, 4, heads, nk, d), codes(rng, 4, heads, nk, value_d))


@pytest.mark.parametrize(
    ("grid", "d", "bits"), [((2, 3), 16, 4), ((7, 5), 20, 8), ((14, 14), 64, 4), ((1, 33), 32, 5)], ids=str
)
def test_relative_positions_equal_the_reference(build, target: HostTarget, grid: tuple[int, int], d: int, bits: int):
    rng = np.random.default_rng(d)
    tokens, n = grid[0] * grid[1], 2**bits - 1
    run = build(log_attention(AttentionShape(Var("b", "int64"), tokens, tokens, d, grid, n, bits=bits), target))
    rel = tuple(rng.integers(-128, 128, (2 * size - 1, d)).astype(np.int8) for size in grid)
    got = check(run, site(rng, d, n, bits, True), *(codes(rng, bits, 2, tokens, d) for _ in range(3)), rel)
    assert got.any()


@pytest.mark.parametrize("n", [1, 16, 32, 33, 255])
def test_every_number_of_thresholds_equals_the_reference(build, target: HostTarget, n: int):
    rng = np.random.default_rng(n)
    run = build(log_attention(AttentionShape(1, Var("nq", "int64"), Var("nk", "int64"), 16, None, n, bits=4), target))
    for spread in (1.0, 6.0):
        check(run, site(rng, 16, n, 4, False, spread), *(codes(rng, 4, 1, size, 16) for size in (9, 77, 77)))


def test_extreme_codes_equal_the_reference(build, target: HostTarget):
    """The largest dot products with zero points at either end."""
    rng = np.random.default_rng(0)
    run = build(log_attention(AttentionShape(*dynamic(), 64, None, 15), target))
    scale = reference.attention_logit_scale((255 * 255 * 64, 3e-5))
    base = site(rng, 64, 15, 8, False)
    for zero in (0, 255):
        c = reference.AttentionConstants(
            zero,
            255 - zero,
            zero,
            **scale,
            log_thresholds=base.log_thresholds,
            table=base.table,
            out_scale=np.float32(1),
        )
        q, k, v = (np.where(rng.random((1, size, 64)) < 0.5, 0, 255).astype(np.uint8) for size in (7, 70, 70))
        q[0, 0], q[0, 1], k[0, 0], k[0, 1] = 0, 255, 0, 255
        check(run, c, q, k, v)


def test_equal_keys_share_the_probability(build, target: HostTarget):
    """All logits equal: every key gets the code of 1 / Nk, whose logarithm is exact for a power of two."""
    c = reference.AttentionConstants(
        0,
        0,
        0,
        **reference.attention_logit_scale((15 * 15 * 16, 0.01)),
        log_thresholds=np.array([6 << 10], np.int32),
        table=np.array([0, 200], np.uint8),
        out_scale=np.float32(0.5),
    )
    run = build(log_attention(AttentionShape(*dynamic(), 16, None, 1), target))
    for nk, operand in ((64, 200), (65, 0)):
        out = check(run, c, *(np.full((1, size, 16), 3, np.uint8) for size in (2, nk, nk)))
        assert (out == operand * nk * 3 * 0.5).all()


@pytest.mark.parametrize(("d", "n"), [(16, 15), (32, 31)])
def test_many_queries_of_few_keys_equal_the_reference(build, target: HostTarget, d: int, n: int):
    rng = np.random.default_rng(d)
    run = build(log_attention(AttentionShape(*dynamic(), d, None, n, bits=4), target))
    for nq, nk in [(270, 1), (33, 3), (257, 7), (16, 32), (5, 33)]:
        c = site(rng, d, n, 4, relative=False)
        check(run, c, *(codes(rng, 4, 2, size, d) for size in (nq, nk, nk)))


def test_a_constant_number_of_few_keys_equals_the_reference(build, target: HostTarget):
    rng = np.random.default_rng(3)
    run = build(log_attention(AttentionShape(2, 50, 6, 16, None, 15, bits=4), target))
    check(run, site(rng, 16, 15, 4, relative=False), *(codes(rng, 4, 2, size, 16) for size in (50, 6, 6)))


@pytest.mark.parametrize(("d", "n", "bits"), [(16, 15, 4), (18, 15, 4), (32, 31, 5), (64, 255, 8)], ids=str)
def test_row_relative_codes_equal_the_reference(build, target: HostTarget, d: int, n: int, bits: int):
    rng = np.random.default_rng(d)
    run = build(log_attention(AttentionShape(*dynamic(), d, None, n, bits=bits, row_relative=True), target))
    for heads, nq, nk in [(1, 1, 1), (2, 33, 7), (1, 13, 130), (3, 6, 64), (1, 7, 1500)]:
        for spread in (0.1, 1.0, 6.0):
            c = site(rng, d, n, bits, False, spread, row_relative=True)
            check(run, c, *(codes(rng, bits, heads, size, d) for size in (nq, nk, nk)))


def test_row_relative_codes_with_relative_positions_equal_the_reference(build, target: HostTarget):
    rng, grid, d = np.random.default_rng(5), (14, 14), 32
    run = build(log_attention(AttentionShape(2, 196, 196, d, grid, 15, bits=4, row_relative=True), target))
    rel = tuple(rng.integers(-128, 128, (27, d)).astype(np.int8) for _ in grid)
    check(run, site(rng, d, 15, 4, True, row_relative=True), *(codes(rng, 4, 2, 196, d) for _ in range(3)), rel)


@pytest.mark.parametrize(("row_relative", "most"), [(False, reference.MAX_KEYS), (True, 33025)])
def test_more_keys_than_sums_have_room_for_are_refused(build, target: HostTarget, row_relative: bool, most: int):
    rng = np.random.default_rng(1)
    run = build(log_attention(AttentionShape(*dynamic(), 4, None, 3, bits=4, row_relative=row_relative), target))
    c = site(rng, 4, 3, 4, False, row_relative=row_relative)
    check(run, c, *(codes(rng, 4, 1, size, 4) for size in (2, most, most)))
    with pytest.raises(ValueError, match=f"at most {most} keys"):
        check(run, c, *(codes(rng, 4, 1, size, 4) for size in (2, most + 1, most + 1)))


def test_pooled_queries_come_by_themselves(build, target: HostTarget):
    rng, heads, sequences, d = np.random.default_rng(2), 3, 2, 16
    queries, tokens, batch = 9, 36, sequences * heads
    c = site(rng, d, 15, 4, False, row_relative=True)
    q, kv = codes(rng, 4, batch, queries, d), codes(rng, 4, 3, batch, tokens, d)
    constants = np.array([getattr(c, name) for name in CONSTANTS], np.int32)
    shape = AttentionShape(batch, queries, tokens, d, None, 15, heads, bits=4, row_relative=True)
    arguments = (q, kv, constants, c.log_thresholds, c.table, np.array([c.out_scale], np.float32))
    got = build(log_attention(shape, target))(*arguments, shape=(sequences, queries, heads * d), dtype="float32")
    apart = reference.log_attention(q, kv[1], kv[2], c).reshape(sequences, heads, queries, d)
    assert np.array_equal(got, apart.transpose(0, 2, 1, 3).reshape(sequences, queries, heads * d))


def test_vnni_kernel_uses_the_instruction():
    target = resolve_target("avx512-vnni")
    kernel = tvm.compile(log_attention(AttentionShape(*dynamic(), 64, None, 15), target), target=target.tvm_target())
    lines = kernel.mod.inspect_source("asm").splitlines()
    assert sum("vpdpbusd" in line and "zmm" in line for line in lines) >= 48


@pytest.mark.parametrize(("grid", "d"), [((4, 16), 32), ((14, 14), 16), ((3, 5), 20), (None, 16)], ids=str)
def test_operands_come_together_and_heads_lie_side_by_side(build, target: HostTarget, grid, d: int):
    rng, heads, sequences = np.random.default_rng(d), 3, 2
    tokens = grid[0] * grid[1] if grid else 77
    c = site(rng, d, 15, 4, grid is not None)
    rel = tuple(rng.integers(-128, 128, (2 * size - 1, d)).astype(np.int8) for size in grid or ())
    qkv = codes(rng, 4, 3, sequences * heads, tokens, d)
    constants = np.array([getattr(c, name) for name in CONSTANTS], np.int32)
    run = build(log_attention(AttentionShape(sequences * heads, tokens, tokens, d, grid, 15, heads, bits=4), target))
    arguments = (qkv, *rel, constants, c.log_thresholds, c.table, np.array([c.out_scale], np.float32))
    got = run(*arguments, shape=(sequences, tokens, heads * d), dtype="float32")
    apart = reference.log_attention(*qkv, c, *rel).reshape(sequences, heads, tokens, d)
    assert np.array_equal(got, apart.transpose(0, 2, 1, 3).reshape(sequences, tokens, heads * d))
