"""Legalisation: which kernels are called, and how many there are."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import tvm_ahcq.ir
from tvm_ahcq.kernels import encode_intervals, layer_norm
from tvm_ahcq.relay_passes.lower.build import generate_code, lower
from tvm_ahcq.relay_passes.lower.kernel_builder import ANY_ROWS, OPAQUE
from tvm_ahcq.relay_passes.lower.kernel_table import with_description
from tvm_ahcq.relay_passes.lower.legalise import legalise
from tvm_ahcq.target import resolve_target


def kernels(mod: tvm.IRModule) -> list[str]:
    """Names of the PrimFuncs of a module, without their numbers."""
    names = [gvar.name_hint for gvar, func in mod.functions.items() if isinstance(func, tirx.PrimFunc)]
    return [name.rpartition("_")[0] for name in names]


def run(mod: tvm.IRModule, *arrays: np.ndarray) -> np.ndarray:
    """Compile and run ``main``."""
    machine = relax.VirtualMachine(
        generate_code(lower(mod, resolve_target("native")), resolve_target("native")), tvm.cpu()
    )
    return machine["main"](*map(tvm.runtime.tensor, arrays)).numpy()


N = TypeVar("N")


@I.ir_module
class Before:
    @R.function
    def main(
        x: R.Tensor((N, 3, 20), "float32"),
        gamma: R.Tensor((20,), "float32"),
        beta: R.Tensor((20,), "float32"),
        thresholds: R.Tensor((7,), "float32"),
        operands: R.Tensor((8,), "uint8"),
    ):
        with R.dataflow():
            y = R.nn.layer_norm(x, gamma, beta, axes=[-1], epsilon=1e-5)
            first = R.ahcq.encode_intervals(y, thresholds, operands, site="a")
            second = R.ahcq.encode_intervals(x, thresholds, operands, site="b")
            wide = R.expand_dims(second, axis=[0])
            out = (first, wide)
            R.output(out)
        return out


@I.ir_module
class Expected:
    """Kernels of matrices for any number of rows; the two encoders share one."""

    @T.prim_func(s_tir=True)
    def layer_norm_0(x: T.handle, gamma: T.handle, beta: T.handle, out: T.handle):
        T.evaluate(0)

    @T.prim_func(s_tir=True)
    def encode_intervals_0(x: T.handle, thresholds: T.handle, operands: T.handle, out: T.handle):
        T.evaluate(0)

    @R.function
    def main(
        x: R.Tensor((N, 3, 20), "float32"),
        gamma: R.Tensor((20,), "float32"),
        beta: R.Tensor((20,), "float32"),
        thresholds: R.Tensor((7,), "float32"),
        operands: R.Tensor((8,), "uint8"),
    ):
        cls = Expected
        with R.dataflow():
            matrix = R.reshape(x, R.shape([N * 3, 20]))
            normal = R.call_tir(cls.layer_norm_0, (matrix, gamma, beta), out_ty=R.Tensor((N * 3, 20), dtype="float32"))
            y = R.reshape(normal, R.shape([N, 3, 20]))
            rows = R.reshape(y, R.shape([N * 3, 20]))
            codes = R.call_tir(
                cls.encode_intervals_0, (rows, thresholds, operands), out_ty=R.Tensor((N * 3, 20), dtype="uint8")
            )
            first = R.reshape(codes, R.shape([N, 3, 20]))
            matrix_again = R.reshape(x, R.shape([N * 3, 20]))
            more_codes = R.call_tir(
                cls.encode_intervals_0,
                (matrix_again, thresholds, operands),
                out_ty=R.Tensor((N * 3, 20), dtype="uint8"),
            )
            second = R.reshape(more_codes, R.shape([N, 3, 20]))
            wide = R.reshape(second, R.shape([1, N, 3, 20]))
            out = (first, wide)
            R.output(out)
        return out


def test_operators_become_calls_of_kernels_on_matrices():
    expected = tvm.IRModule(dict(Expected.functions))
    kernels = {
        "layer_norm_0": (layer_norm, (ANY_ROWS, 20, 1e-5)),
        "encode_intervals_0": (encode_intervals, (ANY_ROWS, 20, 7)),
    }
    for name, (factory, options) in kernels.items():
        named = factory(*options).with_attr("global_symbol", name).with_attr("op_pattern", OPAQUE)
        named = with_description(named, factory, options)
        expected.update_func(expected.get_global_var(name), named)
    tvm.ir.assert_structural_equal(legalise(Before, resolve_target("generic")), expected)


def test_layers_of_one_shape_share_a_kernel_and_no_operator_of_ours_is_left(quantized):
    target = resolve_target("native")
    realised = quantized.realise(target.layout)
    mod = legalise(realised.module, target)
    text = "\n".join(func.script() for func in mod.functions.values() if isinstance(func, relax.Function))
    assert "R.ahcq." not in text and "R.nn.layer_norm" not in text
    counts = Counter(kernels(mod))
    weights = [realised.tensors[name] for name in quantized.table.weights]
    shapes = {(len(w.codes), len(w.index), len(w.group_sizes)) for w in weights}
    assert counts["grouped_linear"] <= len(shapes) < len(weights) / 2
    # kernels of heads differ by their numbers of tokens too
    fused = sum(count for kind, count in counts.items() if "linear" in kind and kind != "linear_heads")
    assert fused < len(weights) / 2 + 1
    assert counts["im2col"] == 1


def test_linear_layers_in_a_row_equal_numpy_for_any_batch():
    @I.ir_module
    class Layers:
        @R.function
        def main(
            x: R.Tensor(("n", 3, 20), "float32"),
            w: R.Tensor((12, 20), "float32"),
            b: R.Tensor((12,), "float32"),
        ):
            with R.dataflow():
                y = R.ahcq.linear(x, w, b, name="fc")
                z = R.expand_dims(y, axis=[0])
                R.output(z)
            return z

    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(12, 20)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    for batch in (1, 7):
        x = rng.normal(size=(batch, 3, 20)).astype(np.float32)
        np.testing.assert_allclose(run(Layers, x, w, b)[0], x @ w.T + b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", [None, (4, 3)])
def test_float_attention_equals_numpy(grid):
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(2, 12, 8)).astype(np.float32) for _ in range(3))
    tables = [rng.normal(size=(2 * n - 1, 8)).astype(np.float32) for n in grid] if grid else []
    names = ["q", "k", "v", "rel_h", "rel_w"]
    arrays = [q, k, v, *tables]
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(name, relax.TensorType(list(a.shape), "float32")) for name, a in zip(names, arrays, strict=False)
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(tvm_ahcq.ir.attention(*variables, name="a", scale=0.5)))
        builder.emit_func_output(out)
    logits = 0.5 * q @ k.transpose(0, 2, 1)
    if grid:
        y, x = np.divmod(np.arange(12), grid[1])
        by_row = tables[0][y[:, None] - y + grid[0] - 1]
        by_column = tables[1][x[:, None] - x + grid[1] - 1]
        logits = logits + np.einsum("bqc,qkc->bqk", q, by_row) + np.einsum("bqc,qkc->bqk", q, by_column)
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    expected = probs / probs.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(run(builder.get(), *arrays), expected, rtol=1e-4, atol=1e-5)
