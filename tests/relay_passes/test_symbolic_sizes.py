"""Sizes that depend on the prompts: what they are for one click, and what can be run for any number of them."""

from __future__ import annotations

import pytest
from tvm import relax, tirx

from tvm_ahcq.codegen.patterns import one_prompt
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.relay_passes.symbolic_sizes import PromptSizes

B, N = tirx.Var("B", "int64"), tirx.Var("N", "int64")


def tensor(*shape) -> relax.Var:
    return relax.Var("x", relax.TensorType(shape, "float32"))


@pytest.fixture(scope="module")
def sizes() -> PromptSizes:
    embedding, points = tensor(1, 8, 4, 4), tensor(B, N, 2)
    return PromptSizes(relax.Function([embedding, points], points))


def test_shapes_are_those_of_a_click_with_its_padding(sizes):
    assert sizes.of_one(tensor(B, N + 5, 16)) == [1, 7, 16]
    assert sizes.of_one(tensor(3, 4)) == [3, 4]
    assert sizes.text(tensor(B, 4, 16)) == "[B, 4, 16]"
    assert sizes.depends([tensor(3, 4), tensor(B, 4)]) and not sizes.depends([tensor(3, 4)])


def test_rows_that_are_independent_may_be_any_number(sizes):
    for shape in ((3, 4), (B, 4), (B, N + 5, 4), (B, 6, 4)):
        assert sizes.reason([tensor(*shape)], rows_alone=True) == ""
    assert "number of points" in sizes.reason([tensor(B, 4, N + 5)], rows_alone=True)


def test_attention_may_depend_on_the_number_of_prompts_alone(sizes):
    image, tokens, once = tensor(B, 2, 64, 8), tensor(B, 2, N + 5, 8), tensor(1, 2, 64, 8)
    assert sizes.reason([image] * 3, rows_alone=False) == ""
    assert sizes.reason([once] * 3, rows_alone=False) == ""
    assert "number of points" in sizes.reason([image, tokens, tokens], rows_alone=False)
    assert "only a part" in sizes.reason([image, once, once], rows_alone=False)


def test_what_a_tensor_holds_of_one_prompt_needs_all_other_axes_static():
    assert one_prompt(tensor(B, 64, 8)) == [1, 64, 8]
    with pytest.raises(DeviceError, match="no axis but the first"):
        one_prompt(tensor(B, N + 5, 8))
