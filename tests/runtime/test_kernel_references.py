"""References of kernels against plain loops, for layouts of rows and outputs that only they know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tvm_ahcq import kernels
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.runtime.kernel_call import Expected, KernelCall, compare_call
from tvm_ahcq.runtime.kernel_references import REFERENCES, window_order
from tvm_ahcq.runtime.weights import pack

SIZES = (20, 32)


def test_every_kernel_has_a_reference() -> None:
    assert set(REFERENCES) == set(kernels.__all__)


def check(kind: str, inputs: list[np.ndarray], output: np.ndarray, **options: object) -> Expected:
    """The reference finds nothing wrong with an output, and finds an element that is changed."""
    call = KernelCall(f"{kind}_0", tuple(inputs), output)
    expected = REFERENCES[kind].compute(call, {"kind": kind, **options})
    assert compare_call(call, expected) == (expected.least.size, None)
    place = tuple(int(np.broadcast_to(axis, expected.least.shape).ravel()[-1]) for axis in expected.at)
    output[place] += 3
    _, difference = compare_call(call, expected)
    assert difference is not None and (difference.count, difference.place) == (1, place)
    return expected


def layer(rng: np.random.Generator, m: int, n: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments of a linear layer, and its outputs."""
    operands, weight = rng.integers(0, 16, (m, sum(SIZES)), dtype=np.uint8), rng.integers(-8, 8, (n, sum(SIZES)))
    multiplier, bias = rng.normal(size=(2, n)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    correction = rng.integers(-99, 99, (2, n)).astype(np.int32)
    arguments = [operands, pack(weight.astype(np.int8), "vnni16"), np.cumsum([0, *SIZES]).astype(np.int32)]
    outputs = reference.grouped_linear(operands, weight, SIZES, multiplier, correction, bias)
    return [*arguments, multiplier, correction, bias], outputs


@pytest.mark.parametrize(("height", "width", "size"), [(10, 7, 4), (8, 8, 4), (3, 5, 7)], ids=str)
def test_windows_are_ordered_as_they_are_cut(height: int, width: int, size: int) -> None:
    order = []
    for image in range(2):
        for top in range(0, height, size):
            for left in range(0, width, size):
                for y in range(top, top + size):
                    for x in range(left, left + size):
                        inside = y < height and x < width
                        order.append((image * height + y) * width + x if inside else -1)
    np.testing.assert_array_equal(window_order(2 * height * width, height, width, size), order)


def test_rows_of_windows_are_added_where_they_lie_in_the_image() -> None:
    rng, windows = np.random.default_rng(0), {"height": 6, "width": 5, "size": 4}
    order = window_order(2 * 30, **windows)
    arguments, y = layer(rng, len(order), 48)
    residual = rng.normal(size=(60, 48)).astype(np.float32)
    total = residual.copy()
    for row, token in enumerate(order):
        if token >= 0:
            total[token] += y[row]
    check("linear_add", [*arguments, residual], total, windows=windows)


def test_a_description_with_other_windows_is_refused() -> None:
    arguments, y = layer(np.random.default_rng(0), 64, 48)
    call = KernelCall("linear_add_0", (*arguments, y), y + y)
    with pytest.raises(ValueError, match="64 rows, but its windows have 144"):
        REFERENCES["linear_add"].compute(call, {"windows": {"height": 8, "width": 8, "size": 6}})


def test_codes_of_heads_are_where_the_kernel_puts_them() -> None:
    rng, tokens, count, d, sequences = np.random.default_rng(0), 7, 3, 16, 2
    arguments, y = layer(rng, sequences * tokens, 3 * count * d)
    scales = [np.array([factor], np.float32) for factor in (9, 5, 2)]
    zeros = [np.array([zero], np.int32) for zero in (7, 8, 3)]
    codes = np.empty((3, sequences * count, tokens, d), np.uint8)
    for part in range(3):
        for row in range(sequences * tokens):
            for head in range(count):
                values = y[row, (part * count + head) * d :][:d]
                found = reference.encode_uniform(values, scales[part], zeros[part], 4)
                codes[part, row // tokens * count + head, row % tokens] = found
    check("linear_heads", [*arguments, *scales, *zeros], codes, bits=4)


def test_normed_rows_fill_windows_up_with_the_code_of_zero() -> None:
    rng, windows = np.random.default_rng(0), {"height": 3, "width": 5, "size": 2}
    x = rng.normal(size=(15, 12)).astype(np.float32)
    gamma, beta = rng.normal(size=(2, 12)).astype(np.float32)
    index = np.append(rng.permutation(12), [-1] * 4).astype(np.int32)
    bounds, scale, zero = np.array([0, 8, 16], np.int32), np.array([0.3, 0.2], np.float32), np.array([7, 5], np.int32)
    deviation = np.sqrt(x.astype(np.float64).var(1, keepdims=True) + 1e-6)
    normed = ((x - x.mean(1, dtype=np.float64, keepdims=True)) / deviation * gamma + beta).astype(np.float32)
    rows = [np.zeros(12, np.float32) if token < 0 else normed[token] for token in window_order(15, **windows)]
    codes = reference.encode_affine(np.stack(rows), index, (8, 8), scale, zero, 4)
    arguments = [x, gamma, beta, index, bounds, scale, zero]
    expected = check("norm_encode", arguments, codes, bits=4, eps=1e-6, windows=windows)
    assert expected.most is not None and np.array_equal(expected.least, expected.most)  # no code is on an edge here


def test_queries_are_pooled_by_squares() -> None:
    operands = np.random.default_rng(0).integers(0, 16, (3, 2, 24, 8), dtype=np.uint8)
    pooled = np.zeros((2, 6, 8), np.uint8)
    for token in range(24):
        square = token // 6 // 2 * 3 + token % 6 // 2
        pooled[:, square] = np.maximum(pooled[:, square], operands[0][:, token])
    check("pool_queries", [operands], pooled, h=4, w=6)


def test_rows_are_a_choice_of_a_large_output() -> None:
    x = np.random.default_rng(0).normal(0, 2, (4096, 512)).astype(np.float32)
    y = np.fromiter((v / 2 * math.erfc(-v / math.sqrt(2)) for v in x.ravel().tolist()), np.float32, x.size)
    expected = check("gelu", [x], y.reshape(x.shape))
    assert 0.2 * x.size < expected.least.size < 0.8 * x.size
    rows = expected.at[0].ravel()
    assert rows[0] == 0 and rows[-1] == len(x) - 1


@pytest.mark.parametrize("accumulate", ["float32", "float64"])
def test_products_may_differ_by_their_rounding_only(accumulate: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(40, 200)).astype(np.float32), rng.normal(size=(24, 200)).astype(np.float32)
    bias = rng.normal(size=24).astype(np.float32)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    check("matmul", [x, weight, bias], exact.astype(np.float32), accumulate=accumulate)
    rounded = KernelCall("matmul_0", (x, weight, bias), x @ weight.T + bias)
    expected = REFERENCES["matmul"].compute(rounded, {"accumulate": accumulate})
    assert (compare_call(rounded, expected)[1] is None) == (accumulate == "float32")
    spoiled = weight.copy()
    spoiled[:, 7] = 0  # one term of 200 is left out
    call = KernelCall("matmul_0", (x, weight, bias), x @ spoiled.T + bias)
    assert compare_call(call, expected)[1] is not None
