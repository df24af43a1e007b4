"""Permutations move or vanish; what is computed stays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from tvm_ahcq import ir as ahcq
from tvm_ahcq.relay_passes.lower.legalise import legalise
from tvm_ahcq.relay_passes.lower.sink_transposes import axis_runs, sink_transposes
from tvm_ahcq.relay_passes.pipeline import _lowering
from tvm_ahcq.relay_passes.rewrite import bindings
from tvm_ahcq.target import resolve_target

B = tirx.Var("B", "int64")
permute, reshape = relax.op.permute_dims, relax.op.reshape


def module(function, *variables: relax.Var) -> tvm.IRModule:
    """A module whose ``main`` is one expression of its arguments."""
    builder = relax.BlockBuilder()
    with builder.function("main", list(variables)):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(function(*variables)))
        builder.emit_func_output(out)
    mod = builder.get()
    mod["main"] = mod["main"].with_attr("num_input", len(variables))
    return relax.transform.CanonicalizeBindings()(relax.transform.Normalize()(mod))


def var(name: str, *shape, dtype: str = "float32") -> relax.Var:
    return relax.Var(name, relax.TensorType(list(shape), dtype))


def operators(mod: tvm.IRModule) -> Counter:
    """How often each operator is called, by name without its prefix."""
    return Counter(b.value.op.name.split(".")[-1] for b in bindings(mod["main"]) if isinstance(b.value, relax.Call))


def run(mod: tvm.IRModule, *arrays: np.ndarray) -> np.ndarray:
    """Compile without the pass under test, and run."""
    target = resolve_target("native")
    built = relax.build(legalise(mod, target), target=target.tvm_target(), relax_pipeline=_lowering())
    return relax.VirtualMachine(built, tvm.cpu())["main"](*map(tvm.runtime.tensor, arrays)).numpy()


def upscaling(weight, x):
    """As the mask decoder ends: GELU on channels first, then a product over channels."""
    active = relax.op.nn.gelu(permute(x, [0, 3, 1, 2]))
    return relax.op.matmul(weight, reshape(active, [B, 8, 64]))


CASES = {
    "flattened": (
        lambda x: permute(reshape(permute(x, [0, 3, 1, 2]), [B, 6, 20]), [0, 2, 1]),
        [var("x", B, 4, 5, 6)],
        {"reshape": 1},
    ),
    "unflattened": (
        lambda x: permute(reshape(permute(x, [0, 2, 1]), [B, 6, 4, 5]), [0, 2, 3, 1]),
        [var("x", B, 20, 6)],
        {"reshape": 1},
    ),
    "another order": (
        lambda x: permute(reshape(permute(x, [0, 2, 1]), [B, 6, 4, 5]), [0, 3, 2, 1]),
        [var("x", B, 20, 6)],
        {"permute_dims": 2, "reshape": 1},
    ),
    "unary": (
        lambda x: permute(relax.op.nn.relu(permute(x, [0, 2, 1])), [0, 2, 1]),
        [var("x", B, 4, 6)],
        {"relu": 1},
    ),
    "fused": (
        lambda x: permute(reshape(relax.op.nn.relu(x), [B, 6, 20]), [0, 2, 1]),
        [var("x", B, 6, 4, 5)],
        {"relu": 1, "permute_dims": 1, "reshape": 1},
    ),
    "product": (upscaling, [var("w", B, 4, 8), var("x", B, 8, 8, 8)], {"reshape": 1, "hypernet_matmul": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_permutations_are_saved_and_results_kept(case):
    function, variables, expected = CASES[case]
    before = module(function, *variables)
    after = sink_transposes(before)
    assert operators(after) == Counter(expected)
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=[int(d) if isinstance(d, tirx.IntImm) else 2 for d in v.ty.shape.values]).astype(np.float32)
        for v in variables
    ]
    np.testing.assert_allclose(run(after, *arrays), run(before, *arrays), rtol=1e-5, atol=2e-6)


def test_heads_are_moved_apart_as_codes():
    def encode(x, index, bounds, scale, zero):
        heads = permute(reshape(x, [B, 7, 4, 8]), [0, 2, 1, 3])
        return ahcq.encode_affine(heads, index, bounds, scale, zero, site="a.q", bits=4, identity=True)

    variables = [
        var("x", B, 7, 32),
        var("index", 8, dtype="int32"),
        var("bounds", 2, dtype="int32"),
        var("scale", 1),
        var("zero", 1, dtype="int32"),
    ]
    before = module(encode, *variables)
    after = sink_transposes(before)
    moved = [b.value for b in bindings(after["main"]) if ahcq.is_op(b.value, "relax.permute_dims")]
    assert [str(call.ty.dtype) for call in moved] == ["uint8"]
    x = np.random.default_rng(0).normal(0, 4, (3, 7, 32)).astype(np.float32)
    bounds, zero = np.array([0, 8], np.int32), np.array([7], np.int32)
    rest = np.arange(8, dtype=np.int32), bounds, np.array([0.5], np.float32), zero
    np.testing.assert_array_equal(run(after, x, *rest), run(before, x, *rest))


def test_channels_that_do_not_stay_last_are_encoded_after_the_permutation():
    def encode(x, *rest):
        return ahcq.encode_affine(permute(x, [0, 2, 1]), *rest, site="a", bits=4, identity=True)

    variables = [
        var("x", B, 7, 8),
        var("index", 7, dtype="int32"),
        var("bounds", 2, dtype="int32"),
        var("scale", 1),
        var("zero", 1, dtype="int32"),
    ]
    before = module(encode, *variables)
    moved = [b.value for b in bindings(sink_transposes(before)["main"]) if ahcq.is_op(b.value, "relax.permute_dims")]
    assert [str(call.ty.dtype) for call in moved] == ["float32"]


@pytest.mark.parametrize(
    "fine, coarse, runs",
    [
        ([2, 3, 4], [2, 12], [[0], [1, 2]]),
        ([2, 3, 4], [24], [[0, 1, 2]]),
        ([2, 3, 4], [2, 3, 4], [[0], [1], [2]]),
        ([2, 3, 4], [3, 8], None),
        ([2, 3, 4], [2, 3], None),
    ],
)
def test_axes_that_make_up_another(fine, coarse, runs):
    sizes = [[tirx.IntImm("int64", size) for size in shape] for shape in (fine, coarse)]
    assert axis_runs(*sizes) == runs


def test_symbolic_axes_are_their_own_only():
    assert axis_runs([B, tirx.IntImm("int64", 3)], [B, tirx.IntImm("int64", 3)]) == [[0], [1]]
    assert axis_runs([B, tirx.IntImm("int64", 3)], [tirx.Var("C", "int64"), tirx.IntImm("int64", 3)]) is None
