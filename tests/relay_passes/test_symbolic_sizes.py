"""Symbolic sizes: their typical values, and which operators one program serves for any number of items."""

from __future__ import annotations

import pytest
from tvm import relax, tirx

from tvm_ahcq.codegen.patterns import one_prompt
from tvm_ahcq.errors import DeviceError, UnsupportedModelError
from tvm_ahcq.models.description import ModelFamily, SymbolicDim
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.relay_passes.symbolic_sizes import SymbolicSizes

B, N = tirx.Var("B", "int64"), tirx.Var("N", "int64")


def tensor(*shape) -> relax.Var:
    return relax.Var("x", relax.TensorType(shape, "float32"))


def sizes_of(family: ModelFamily, *inputs: relax.Var) -> SymbolicSizes:
    return SymbolicSizes(relax.Function([*inputs], inputs[-1]), family)


@pytest.fixture(scope="module")
def sizes() -> SymbolicSizes:
    return sizes_of(SAM, tensor(1, 8, 4, 4), tensor(B, N, 2))


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
    assert sizes.reason([image, once, once], rows_alone=False) == "only a part of its operands has an axis of prompts"


def test_a_symbol_counts_what_the_description_says_wherever_it_stands(make_family):
    dims = (SymbolicDim("M", "memory tokens", typical=28), SymbolicDim("O", "objects", typical=3, batch=True))
    family = make_family({}, dims)
    memory, objects = tirx.Var("M", "int64"), tirx.Var("O", "int64")
    sizes = sizes_of(family, tensor(memory, 64), tensor(objects, 2 * memory, 4))
    assert sizes.of_one(tensor(objects, memory + 4)) == [1, 32]
    assert sizes.reason([tensor(objects, 4, 64)] * 3, rows_alone=False) == ""
    reason = "its number of tokens depends on the number of memory tokens"
    for shape in ((memory, 4, 64), (objects, memory, 64)):
        assert sizes.reason([tensor(*shape)] * 3, rows_alone=False) == reason


def test_a_symbol_that_nobody_described_is_refused(make_family):
    with pytest.raises(UnsupportedModelError, match=r"'M' is not described; SAM has B \(prompts\), N \(points\)"):
        sizes_of(SAM, tensor(B, tirx.Var("M", "int64"), 2))
    with pytest.raises(UnsupportedModelError, match="'B' is not described; Toy has none"):
        sizes_of(make_family({}), tensor(B, 4))


def test_a_shape_that_depends_on_no_input_is_refused(sizes):
    with pytest.raises(UnsupportedModelError, match=r"the shape \[B, K\] depends on more than"):
        sizes.of_one(tensor(B, tirx.Var("K", "int64")))


def test_what_a_tensor_holds_of_one_prompt_needs_all_other_axes_static():
    assert one_prompt(tensor(B, 64, 8)) == [1, 64, 8]
    with pytest.raises(DeviceError, match="no axis but the first"):
        one_prompt(tensor(B, N + 5, 8))
