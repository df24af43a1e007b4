"""Log-domain attention in vectors of AVX2 against the integer semantics, where its 16-bit sums come to their ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tvm

from tvm_ahcq.kernels import log_attention
from tvm_ahcq.kernels.attention.avx2 import supports_avx2
from tvm_ahcq.kernels.attention.avx2_products import SPARSE
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.attention.vnni_softmax_codes import MAX_MINUS_LOG2
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.target import HostTarget, host_features, resolve_target

from ..conftest import compiled
from .test_dispatch import check, codes, dynamic, site

ANY = dynamic()
"""Sizes of a kernel for any number of heads, queries and keys."""

Compile = Callable[[AttentionShape], Callable[..., np.ndarray]]


@pytest.fixture(scope="module")
def avx2() -> HostTarget:
    return resolve_target("avx2")


@pytest.fixture(scope="module")
def attention(avx2: HostTarget) -> Compile:
    """Compiles the kernel of a shape that the vector form takes."""
    if not host_features().issuperset(avx2.cpu_features):
        pytest.skip("this machine cannot run code for avx2")

    @functools.cache
    def build(shape: AttentionShape) -> Callable[..., np.ndarray]:
        assert supports_avx2(shape)
        return compiled(avx2, log_attention(shape, avx2))

    return build


def ends(rng: np.random.Generator, bits: int, *shape: int) -> np.ndarray:
    """The least and the largest code."""
    return np.where(rng.random(shape) < 0.5, 0, 2**bits - 1).astype(np.uint8)


def tables(rng: np.random.Generator, *grid: int, d: int) -> tuple[np.ndarray, ...]:
    """The least and the largest relative positions."""
    return tuple(np.where(rng.random((2 * side - 1, d)) < 0.5, -128, 127).astype(np.int8) for side in grid)


@pytest.mark.parametrize(
    ("d", "bits"), [(4, 6), (12, 4), (16, 4), (20, 2), (32, 5), (64, 4), (80, 6), (136, 4)], ids=str
)
def test_any_number_of_heads_queries_and_keys_equals_the_reference(attention: Compile, d: int, bits: int):
    rng = np.random.default_rng(d)
    run = attention(AttentionShape(*ANY, d, None, 15, bits=bits))
    for heads, nq, nk in [(1, 1, 1), (2, 7, 5), (1, 13, 130), (3, 6, 64), (1, 50, int(rng.integers(65, 300)))]:
        check(run, site(rng, d, 15, bits, False), *(codes(rng, bits, heads, size, d) for size in (nq, nk, nk)))


@pytest.mark.parametrize(
    ("grid", "d", "bits"),
    [
        ((8, 8), 32, 4),
        ((16, 16), 32, 4),
        ((14, 14), 64, 4),
        ((5, 8), 16, 5),
        ((2, 3), 16, 4),
        ((7, 5), 20, 6),
        ((1, 33), 32, 5),
        ((3, 1), 4, 2),
        ((33, 40), 24, 4),
    ],
    ids=str,
)
def test_relative_positions_equal_the_reference(attention: Compile, grid: tuple[int, int], d: int, bits: int):
    rng, tokens, heads = np.random.default_rng(d), grid[0] * grid[1], 2 if grid[0] * grid[1] < SPARSE else 1
    run = attention(AttentionShape(heads, tokens, tokens, d, grid, 15, bits=bits))
    for draw in (codes, ends):
        c = site(rng, d, 15, bits, True)
        assert check(run, c, *(draw(rng, bits, heads, tokens, d) for _ in range(3)), tables(rng, *grid, d=d)).any()


def test_windows_of_padding_equal_the_reference(attention: Compile):
    """Tokens past the edge of a picture have the codes of 0: a few in a window, or all of them."""
    rng, grid, d = np.random.default_rng(0), (14, 14), 32
    run = attention(AttentionShape(3, 196, 196, d, grid, 15, bits=4))
    c = site(rng, d, 15, 4, True)
    q, k, v = (codes(rng, 4, 3, 196, d) for _ in range(3))
    for operand, zero in ((q, c.q_zero), (k, c.k_zero), (v, c.v_zero)):
        operand.reshape(3, 14, 14, d)[1, 8:] = zero
        operand[2] = zero
    check(run, c, q, k, v, tables(rng, *grid, d=d))


@pytest.mark.parametrize(("d", "bits"), [(64, 4), (256, 4), (64, 6)])
@pytest.mark.parametrize("high", [False, True], ids=["zeros_at_0", "zeros_at_top"])
def test_the_largest_dot_products_equal_the_reference(attention: Compile, d: int, bits: int, high: bool):
    rng, top = np.random.default_rng(bits), 2**bits - 1
    run = attention(AttentionShape(*ANY, d, None, 15, bits=bits))
    base = site(rng, d, 15, bits, False)
    scale = reference.attention_logit_scale((top * top * d, 8 / (top * top * d)))
    zero = top if high else 0
    c = replace(base, **scale, q_zero=zero, k_zero=top - zero, v_zero=zero)
    q, k, v = (ends(rng, bits, 2, size, d) for size in (7, 70, 70))
    q[0, 0], q[0, 1], k[0, 0], k[0, 1], v[0, ::2] = 0, top, 0, top, top - zero
    check(run, c, q, k, v)
    check(run, replace(c, k_zero=zero), q, k, v)


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("nk", [1, 2, 8, 33, 300, SPARSE + 5])
def test_largest_operands_of_every_key_equal_the_reference(attention: Compile, bits: int, nk: int):
    """A table and thresholds that no probabilities of sum 1 have: sums of operands times values leave 16 bits."""
    rng, d, top = np.random.default_rng(nk), 32, 2**bits - 1
    run = attention(AttentionShape(*ANY, d, None, 15, bits=bits))
    c = replace(
        site(rng, d, 15, bits, False, spread=0.5),
        log_thresholds=np.full(15, MAX_MINUS_LOG2, np.int32),
        table=np.array([0, *range(241, 256)], np.uint8),
    )
    q, k = codes(rng, bits, 1, 6, d), codes(rng, bits, 1, nk, d)
    for zero, value in ((0, top), (top, 0)):
        out = check(run, replace(c, v_zero=zero), q, k, np.full((1, nk, d), value, np.uint8))
        expected = np.float32(255 * nk * (value - zero)) * c.out_scale
        assert (out == expected).all()


@pytest.mark.parametrize(("nk", "operand"), [(12, 182), (19, 115)], ids=["within_16_bits", "past_16_bits"])
def test_sums_at_the_end_of_16_bits_equal_the_reference(attention: Compile, nk: int, operand: int):
    """Operands that sum to 2184 or 2185, of values -15: 2184 is the largest number whose product with 15 fits."""
    d = 16
    c = replace(
        site(np.random.default_rng(0), d, 1, 4, False),
        v_zero=15,
        log_thresholds=np.array([6 << reference.FRACTION_BITS], np.int32),
        table=np.array([0, operand], np.uint8),
    )
    run = attention(AttentionShape(*ANY, d, None, 1, bits=4))
    q, k, v = np.full((1, 5, d), 7, np.uint8), np.full((1, nk, d), 3, np.uint8), np.zeros((1, nk, d), np.uint8)
    assert (check(run, c, q, k, v) == np.float32(-15 * operand * nk) * c.out_scale).all()


@pytest.mark.parametrize("nk", [1, 7, 32, 4096])
def test_equal_keys_share_the_probability(attention: Compile, nk: int):
    rng, d = np.random.default_rng(nk), 16
    run = attention(AttentionShape(*ANY, d, None, 15, bits=4))
    c = site(rng, d, 15, 4, False)
    check(run, c, codes(rng, 4, 1, 3, d), np.full((1, nk, d), 5, np.uint8), codes(rng, 4, 1, nk, d))


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("nk", [1, 8, 9, 33, 300, SPARSE + 5, 4 * SPARSE])
def test_row_relative_codes_of_equal_keys_give_their_mean(attention: Compile, nk: int, bits: int):
    """Every operand is 255: sums of operands times values leave 16 bits after 8 keys of 4 bits."""
    rng, d, top = np.random.default_rng(nk), 32, 2**bits - 1
    run = attention(AttentionShape(*ANY, d, None, 15, bits=bits, row_relative=True))
    c = site(rng, d, 15, bits, False, row_relative=True)
    keys = np.full((1, nk, d), 5, np.uint8)
    for zero, value in ((0, top), (top, 0)):
        c = replace(c, v_zero=zero)
        out = check(run, c, codes(rng, bits, 1, 6, d), keys, np.full((1, nk, d), value, np.uint8))
        np.testing.assert_allclose(out, (value - zero) * c.out_scale, rtol=1e-6)
    check(run, c, codes(rng, bits, 1, 6, d), keys, codes(rng, bits, 1, nk, d))


@pytest.mark.parametrize("d", [16, 72])
@pytest.mark.parametrize("nk", [200, SPARSE + 77, 5000])
def test_row_relative_codes_of_every_spread_equal_the_reference(attention: Compile, d: int, nk: int):
    """From rows of which a block of keys leaves 16 bits to rows of one key."""
    rng = np.random.default_rng(d)
    q, k, v = codes(rng, 4, 2, 9, d), codes(rng, 4, 2, nk, d), codes(rng, 4, 2, nk, d)
    run = attention(AttentionShape(*ANY, d, None, 15, bits=4, row_relative=True))
    for spread in (0.1, 0.5, 1.0, 2.0, 4.0, 9.0):
        check(run, site(rng, d, 15, 4, False, spread, row_relative=True), q, k, v)


@pytest.mark.parametrize("d", [16, 20, 72])
def test_keys_of_no_operand_are_skipped(attention: Compile, d: int):
    """Few of many keys are probable; their number is constant or not."""
    rng, nk = np.random.default_rng(d), SPARSE + 77
    q, k, v = codes(rng, 4, 2, 9, d), codes(rng, 4, 2, nk, d), codes(rng, 4, 2, nk, d)
    for shape in (AttentionShape(*ANY, d, None, 15, bits=4), AttentionShape(2, 9, nk, d, None, 15, bits=4)):
        for spread in (1.0, 4.0, 9.0):
            check(attention(shape), site(rng, d, 15, 4, False, spread), q, k, v)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 14, 15])
def test_every_number_of_thresholds_equals_the_reference(attention: Compile, n: int):
    rng = np.random.default_rng(n)
    run = attention(AttentionShape(*ANY, 16, None, n, bits=4))
    for spread in (1.0, 6.0):
        check(run, site(rng, 16, n, 4, False, spread), *(codes(rng, 4, 1, size, 16) for size in (9, 77, 77)))


@pytest.mark.parametrize(
    "shape",
    [
        AttentionShape(24, 64, 64, 32, (8, 8), 15, 6, bits=4),
        AttentionShape(6, 256, 256, 32, (16, 16), 15, 6, bits=4),
        AttentionShape(*ANY, 16, None, 15, bits=4),
        AttentionShape(12, 4096, 4096, 64, (64, 64), 15, 12, bits=4),
    ],
    ids=["vit_t_windows", "vit_t_global", "decoder", "sam_b_global"],
)
def test_kernel_uses_the_instructions(avx2: HostTarget, shape: AttentionShape):
    kernel = tvm.compile(log_attention(shape, avx2), target=avx2.tvm_target())
    lines = kernel.mod.inspect_source("asm").splitlines()
    wide = [line for line in lines if "ymm" in line]
    for instruction, count in {"vpmaddubsw": 16, "vpmulhuw": 6, "vpshufb": 1, "vpcmpgtw": 4}.items():
        assert sum(instruction in line for line in wide) >= count, instruction


@pytest.mark.parametrize("other", [{"bits": 7}, {"bits": 8}, {"n_thresholds": 16}, {"d": 18}], ids=str)
def test_other_shapes_are_left_to_the_generic_kernel(avx2: HostTarget, other: dict[str, int]):
    assert not supports_avx2(replace(AttentionShape(1, 4, 4, 16, None, 15, bits=4), **other))
