"""Depths of partial sums of the dot products over four channels."""

from __future__ import annotations

import pytest

from tvm_ahcq.kernels.common.dot4 import dot4
from tvm_ahcq.target import resolve_target

INT16_MAX = 2**15 - 1


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
@pytest.mark.parametrize("operand_max", [1, 15, 126, 127, 128, 255])
@pytest.mark.parametrize(("name", "products"), [("avx2", 2), ("aarch64", 1)])
def test_depth_is_the_most_that_widths_prove(name: str, products: int, bits: int, operand_max: int):
    dot = dot4(resolve_target(name), bits, operand_max)
    largest = (128 if dot.centred else operand_max) * (128 if bits == 8 else 2**bits - 1)
    assert products * largest * dot.depth <= INT16_MAX < products * largest * (dot.depth + 1)
    assert dot.centred == (name == "aarch64" and operand_max > 127)


def test_depth_proven_by_weights_replaces_a_smaller_one_where_operands_are_bounded():
    assert dot4(resolve_target("avx2"), 4, 126, 48).depth == 48
    assert dot4(resolve_target("avx2"), 4, 15, 48).depth == 72
    assert dot4(resolve_target("aarch64"), 4, 126, 129).depth == 129
    assert dot4(resolve_target("aarch64"), 4, 255, 129).depth == 17
