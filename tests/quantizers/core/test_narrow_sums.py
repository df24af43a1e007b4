"""Proofs about 16-bit sums against sums of the worst operands."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.core.narrow_sums import INT16_MAX, check_steps, exact_steps, steps_by_width


def worst(weight: np.ndarray, operand_max: int, steps: int) -> int:
    """Largest absolute sum of a channel pair over `steps` quadruples, each product as bad as it can be."""
    products = weight.astype(int).reshape(len(weight), -1, 2, 2) * operand_max
    largest = 0
    for start in range(products.shape[1] - steps + 1):
        window = products[:, start : start + steps]
        for signed in (window, -window):
            largest = max(largest, int(np.maximum(signed, 0).sum(axis=(1, 3)).max()))
    return largest


@pytest.mark.parametrize("weight_max", [1, 11, 15, 63, 127, 128])
@pytest.mark.parametrize("operand_max", [1, 15, 126, 255])
def test_steps_by_width_are_the_most_that_fit(weight_max: int, operand_max: int):
    steps = steps_by_width(weight_max, operand_max)
    assert 2 * weight_max * operand_max * steps <= INT16_MAX < 2 * weight_max * operand_max * (steps + 1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("weight_max", "operand_max"), [(15, 15), (11, 126), (15, 255), (127, 255)])
def test_one_step_more_than_extreme_weights_allow_is_refused(weight_max: int, operand_max: int, sign: int):
    limit = steps_by_width(weight_max, operand_max)
    weight = np.full((3, 4 * (limit + 9)), sign * weight_max, np.int8)
    check_steps(weight, operand_max, limit)
    with pytest.raises(ValueError, match=f"{limit + 1} steps with operands up to {operand_max} reach"):
        check_steps(weight, operand_max, limit + 1)


@pytest.mark.parametrize("shape", [(1, 4), (5, 64), (17, 204), (3, 1200)])
@pytest.mark.parametrize(("weight_max", "operand_max"), [(15, 15), (7, 126), (15, 255), (127, 15), (127, 255)])
def test_proven_steps_fit_wherever_a_sum_begins(shape: tuple[int, int], weight_max: int, operand_max: int):
    weight = np.random.default_rng(shape[1]).integers(-weight_max, weight_max + 1, shape).astype(np.int8)
    steps, quadruples = exact_steps(weight, operand_max), shape[1] // 4
    assert steps == quadruples or steps in (0, 1, 2, 4, 8, 16, 32, 64)
    assert worst(weight, operand_max, steps) <= INT16_MAX
    if steps < quadruples:
        assert worst(weight, operand_max, quadruples) > INT16_MAX
        assert steps == 64 or worst(weight, operand_max, min(max(2 * steps, 1), quadruples)) > INT16_MAX


def test_a_single_weight_too_many_is_refused():
    """The sum of a pair reaches the bound exactly; then one weight grows by one."""
    weight = np.ones((2, 4 * 100), np.int8)
    weight[1, 0::4] = 63
    operand_max = INT16_MAX // (63 + 1)
    assert exact_steps(weight[:, :4], operand_max) == 1
    weight[1, 1] = 2
    assert exact_steps(weight[:, :4], operand_max) == 0
    with pytest.raises(ValueError, match="1 steps"):
        check_steps(weight[:, :4], operand_max, 1)
