"""Calls are compared element by element, and a difference is found where it is."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.runtime.kernel_call import Expected, KernelCall, compare_call, grid, some


def call(output: np.ndarray) -> KernelCall:
    return KernelCall("codes_3", (), output)


def test_equal_elements_are_counted():
    output = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert compare_call(call(output), Expected(grid(np.array([0, 2]), 4), output[[0, 2]])) == (8, None)


def test_the_first_difference_is_named_by_its_place_in_the_output():
    output = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    right = output[:, [0, 2]].copy()
    right[1, 1, 3] += 1
    right[1, 1, 2] += 1
    compared, difference = compare_call(call(output), Expected(grid(2, np.array([0, 2]), 4), right))
    assert compared == 16 and difference is not None
    assert (difference.count, difference.place, difference.found, difference.expected) == (2, (1, 2, 2), "22", "23")
    assert "codes_3 (2 x 3 x 4): 2 of 16 elements differ, first at [1, 2, 2]: 22, expected 23" in str(difference)


@pytest.mark.parametrize("other", [-0.0, np.float32(1e-45), np.nan])
def test_floats_are_compared_bit_by_bit(other: float):
    output = np.zeros((2, 3), np.float32)
    right = output.copy()
    right[1, 1] = other
    _, difference = compare_call(call(output), Expected(grid(2, 3), right))
    assert difference is not None and difference.place == (1, 1)
    assert compare_call(call(right), Expected(grid(2, 3), right))[1] is None


def test_a_range_includes_its_ends_and_no_nan():
    output = np.array([[1, 2, 3, np.nan]], np.float32)
    least, most = np.array([[1.0, 1, 2, 0]]), np.array([[1.5, 2, 2.5, 9]])
    _, difference = compare_call(call(output), Expected(grid(1, 4), least, most))
    assert difference is not None and (difference.count, difference.place) == (2, (0, 2))
    assert difference.expected == "2.0 to 2.5"


@pytest.mark.parametrize("right", [np.zeros((1, 3), np.int8), np.zeros((1, 1), np.uint8)], ids=["type", "shape"])
def test_what_does_not_fit_is_refused(right: np.ndarray):
    with pytest.raises(ValueError, match="where the reference has"):
        compare_call(call(np.zeros((1, 3), np.uint8)), Expected(grid(1, 3), right))


@pytest.mark.parametrize(("count", "most"), [(5, 9), (9, 9), (100, 40), (10_000, 50), (1000, 0)])
def test_a_choice_is_ascending_has_both_ends_and_is_the_same_again(count: int, most: int):
    chosen = some(count, most)
    assert len(chosen) == min(count, max(most, 8))
    assert (np.diff(chosen) > 0).all() and chosen[0] == 0 and chosen[-1] == count - 1
    np.testing.assert_array_equal(chosen, some(count, most))
    if count > 2 * most > 100:
        assert (some(count, most, seed=1) != chosen).any()
