"""Permutations move or vanish; what is computed stays."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_ahcq.ir  # noqa: F401  (R.ahcq)
from tvm_ahcq.relay_passes.lower.build import generate_code
from tvm_ahcq.relay_passes.lower.legalise import legalise
from tvm_ahcq.relay_passes.lower.sink_transposes import axis_runs, sink_transposes
from tvm_ahcq.target import resolve_target

B = TypeVar("B")


@I.ir_module
class FlattenedBetweenPermutations:
    @R.function
    def main(x: R.Tensor((B, 4, 5, 6), "float32")):
        with R.dataflow():
            first = R.permute_dims(x, axes=[0, 3, 1, 2])
            flat = R.reshape(first, R.shape([B, 6, 20]))
            out = R.permute_dims(flat, axes=[0, 2, 1])
            R.output(out)
        return out


@I.ir_module
class Flattened:
    @R.function
    def main(x: R.Tensor((B, 4, 5, 6), "float32")):
        with R.dataflow():
            out = R.reshape(x, R.shape([B, 20, 6]))
            R.output(out)
        return out


@I.ir_module
class UnflattenedBetweenPermutations:
    @R.function
    def main(x: R.Tensor((B, 20, 6), "float32")):
        with R.dataflow():
            first = R.permute_dims(x, axes=[0, 2, 1])
            grid = R.reshape(first, R.shape([B, 6, 4, 5]))
            out = R.permute_dims(grid, axes=[0, 2, 3, 1])
            R.output(out)
        return out


@I.ir_module
class Unflattened:
    @R.function
    def main(x: R.Tensor((B, 20, 6), "float32")):
        with R.dataflow():
            out = R.reshape(x, R.shape([B, 4, 5, 6]))
            R.output(out)
        return out


@I.ir_module
class PermutationsOfAnotherOrder:
    @R.function
    def main(x: R.Tensor((B, 20, 6), "float32")):
        with R.dataflow():
            first = R.permute_dims(x, axes=[0, 2, 1])
            grid = R.reshape(first, R.shape([B, 6, 4, 5]))
            out = R.permute_dims(grid, axes=[0, 3, 2, 1])
            R.output(out)
        return out


@I.ir_module
class UnaryBetweenPermutations:
    @R.function
    def main(x: R.Tensor((B, 4, 6), "float32")):
        with R.dataflow():
            first = R.permute_dims(x, axes=[0, 2, 1])
            active = R.nn.relu(first)
            out = R.permute_dims(active, axes=[0, 2, 1])
            R.output(out)
        return out


@I.ir_module
class Unary:
    @R.function
    def main(x: R.Tensor((B, 4, 6), "float32")):
        with R.dataflow():
            out = R.nn.relu(x)
            R.output(out)
        return out


@I.ir_module
class PermutationAfterFlattening:
    @R.function
    def main(x: R.Tensor((B, 6, 4, 5), "float32")):
        with R.dataflow():
            active = R.nn.relu(x)
            flat = R.reshape(active, R.shape([B, 6, 20]))
            out = R.permute_dims(flat, axes=[0, 2, 1])
            R.output(out)
        return out


@I.ir_module
class PermutationBeforeFlattening:
    """Where TVM fuses it with the ReLU."""

    @R.function
    def main(x: R.Tensor((B, 6, 4, 5), "float32")):
        with R.dataflow():
            active = R.nn.relu(x)
            last = R.permute_dims(active, axes=[0, 2, 3, 1])
            out = R.reshape(last, R.shape([B, 20, 6]))
            R.output(out)
        return out


@I.ir_module
class ProductWithChannelsFirst:
    """The end of the mask decoder: GELU on channels first, then a product over channels."""

    @R.function
    def main(w: R.Tensor((B, 4, 8), "float32"), x: R.Tensor((B, 8, 8, 8), "float32")):
        with R.dataflow():
            first = R.permute_dims(x, axes=[0, 3, 1, 2])
            active = R.nn.gelu(first)
            flat = R.reshape(active, R.shape([B, 8, 64]))
            out = R.matmul(w, flat)
            R.output(out)
        return out


@I.ir_module
class ProductWithChannelsLast:
    @R.function
    def main(w: R.Tensor((B, 4, 8), "float32"), x: R.Tensor((B, 8, 8, 8), "float32")):
        with R.dataflow():
            flat = R.reshape(x, R.shape([B, 64, 8]))
            out = R.ahcq.hypernet_matmul(w, flat, activation="gelu")
            R.output(out)
        return out


@I.ir_module
class HeadsMovedAsFloats:
    @R.function
    def main(
        x: R.Tensor((B, 7, 32), "float32"),
        index: R.Tensor((8,), "int32"),
        bounds: R.Tensor((2,), "int32"),
        scale: R.Tensor((1,), "float32"),
        zero: R.Tensor((1,), "int32"),
    ):
        with R.dataflow():
            split = R.reshape(x, R.shape([B, 7, 4, 8]))
            heads = R.permute_dims(split, axes=[0, 2, 1, 3])
            out = R.ahcq.encode_affine(heads, index, bounds, scale, zero, site="a.q", bits=4, identity=True)
            R.output(out)
        return out


@I.ir_module
class HeadsMovedAsCodes:
    @R.function
    def main(
        x: R.Tensor((B, 7, 32), "float32"),
        index: R.Tensor((8,), "int32"),
        bounds: R.Tensor((2,), "int32"),
        scale: R.Tensor((1,), "float32"),
        zero: R.Tensor((1,), "int32"),
    ):
        with R.dataflow():
            split = R.reshape(x, R.shape([B, 7, 4, 8]))
            codes = R.ahcq.encode_affine(split, index, bounds, scale, zero, site="a.q", bits=4, identity=True)
            out = R.permute_dims(codes, axes=[0, 2, 1, 3])
            R.output(out)
        return out


@I.ir_module
class ChannelsThatDoNotStayLast:
    @R.function
    def main(
        x: R.Tensor((B, 7, 8), "float32"),
        index: R.Tensor((7,), "int32"),
        bounds: R.Tensor((2,), "int32"),
        scale: R.Tensor((1,), "float32"),
        zero: R.Tensor((1,), "int32"),
    ):
        with R.dataflow():
            turned = R.permute_dims(x, axes=[0, 2, 1])
            out = R.ahcq.encode_affine(turned, index, bounds, scale, zero, site="a", bits=4, identity=True)
            R.output(out)
        return out


CASES = {
    "flattened": (FlattenedBetweenPermutations, Flattened),
    "unflattened": (UnflattenedBetweenPermutations, Unflattened),
    "another order": (PermutationsOfAnotherOrder, PermutationsOfAnotherOrder),
    "unary": (UnaryBetweenPermutations, Unary),
    "fused": (PermutationAfterFlattening, PermutationBeforeFlattening),
    "product": (ProductWithChannelsFirst, ProductWithChannelsLast),
    "heads": (HeadsMovedAsFloats, HeadsMovedAsCodes),
    "channels not last": (ChannelsThatDoNotStayLast, ChannelsThatDoNotStayLast),
}


@pytest.mark.parametrize("case", CASES)
def test_permutations_are_saved(case: str):
    before, expected = CASES[case]
    tvm.ir.assert_structural_equal(sink_transposes(before), expected)


def arguments(mod: tvm.IRModule) -> list[np.ndarray]:
    """Random inputs of ``main``, three to a batch; beside a quantizer, some of them beyond its range."""
    rng, params = np.random.default_rng(0), mod["main"].params
    quantizer = {
        "index": np.arange(8, dtype=np.int32),
        "bounds": np.array([0, 8], np.int32),
        "scale": np.array([0.5], np.float32),
        "zero": np.array([7], np.int32),
    }
    spread = 4 if any(param.name == "scale" for param in params) else 1
    shapes = [[int(d) if isinstance(d, tirx.IntImm) else 3 for d in param.ty.shape.values] for param in params]
    floats = (rng.normal(0, spread, shape).astype(np.float32) for shape in shapes)
    return [quantizer.get(param.name, x) for param, x in zip(params, floats, strict=True)]


def run(mod: tvm.IRModule, *arrays: np.ndarray) -> np.ndarray:
    """Compile without the pass under test, and run."""
    target = resolve_target("native")
    built = generate_code(legalise(mod, target), target)
    return relax.VirtualMachine(built, tvm.cpu())["main"](*map(tvm.runtime.tensor, arrays)).numpy()


@pytest.mark.parametrize("case", [case for case, (before, expected) in CASES.items() if before is not expected])
def test_results_are_kept(case: str):
    before, expected = CASES[case]
    arrays = arguments(before)
    np.testing.assert_allclose(run(expected, *arrays), run(before, *arrays), rtol=1e-5, atol=2e-6)


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
    batch = tirx.Var("B", "int64")
    assert axis_runs([batch, tirx.IntImm("int64", 3)], [batch, tirx.IntImm("int64", 3)]) == [[0], [1]]
    assert axis_runs([batch, tirx.IntImm("int64", 3)], [tirx.Var("C", "int64"), tirx.IntImm("int64", 3)]) is None
