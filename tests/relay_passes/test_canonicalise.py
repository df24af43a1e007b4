"""Canonicalisation: structure of small graphs, and equality of whole models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_ahcq.ir  # noqa: F401  (registers R.ahcq)
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.torch_exec.executor import TorchExecutor

EPSILON = float(np.float32(1e-6))
"""Of normalisations, as constants of graphs hold it."""


def test_a_linear_layer_takes_the_name_of_its_module():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), w: R.Tensor((4, 3), "float32"), b: R.Tensor((4,), "float32")):
            R.func_attr({"ahcq_param_names": ["block.fc.weight", "block.fc.bias"]})
            with R.dataflow():
                turned = R.permute_dims(w)
                product = R.matmul(x, turned)
                y = R.add(b, product)
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), w: R.Tensor((4, 3), "float32"), b: R.Tensor((4,), "float32")):
            R.func_attr({"ahcq_param_names": ["block.fc.weight", "block.fc.bias"]})
            with R.dataflow():
                y = R.ahcq.linear(x, w, b, name="block.fc")
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(canonicalise(Before), Expected)


def test_a_product_of_two_activations_is_left_alone():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), w: R.Tensor((4, 3), "float32"), b: R.Tensor((4,), "float32")):
            R.func_attr({"ahcq_param_names": []})
            with R.dataflow():
                product = R.matmul(x, R.permute_dims(w))
                y = R.add(product, b)
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(canonicalise(Before), relax.transform.CanonicalizeBindings()(Before))


def test_attention_with_its_scale_on_the_logits_becomes_one_operator():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((2, 5, 8), "float32"),
            k: R.Tensor((2, 7, 8), "float32"),
            v: R.Tensor((2, 7, 8), "float32"),
            w: R.Tensor((8, 8), "float32"),
            b: R.Tensor((8,), "float32"),
        ):
            R.func_attr({"ahcq_param_names": ["a.self_attn.q_proj.weight", "a.self_attn.q_proj.bias"]})
            with R.dataflow():
                q = R.add(R.matmul(x, R.permute_dims(w)), b)
                logits = R.divide(R.matmul(q, R.permute_dims(k, [0, 2, 1])), R.const(4.0, "float32"))
                y = R.matmul(R.nn.softmax(logits, axis=-1), v)
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor((2, 5, 8), "float32"),
            k: R.Tensor((2, 7, 8), "float32"),
            v: R.Tensor((2, 7, 8), "float32"),
            w: R.Tensor((8, 8), "float32"),
            b: R.Tensor((8,), "float32"),
        ):
            R.func_attr({"ahcq_param_names": ["a.self_attn.q_proj.weight", "a.self_attn.q_proj.bias"]})
            with R.dataflow():
                q = R.ahcq.linear(x, w, b, name="a.self_attn.q_proj")
                y = R.ahcq.attention(q, k, v, name="a.self_attn", scale=0.25)
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(canonicalise(Before), Expected)


def test_patches_that_do_not_overlap_become_a_linear_layer():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 3, 4, 8), "float32"), w: R.Tensor((5, 3, 2, 2), "float32"), b: R.Tensor((5,))):
            R.func_attr({"ahcq_param_names": ["patch.weight", "patch.bias"]})
            with R.dataflow():
                y = R.add(R.nn.conv2d(x, w, strides=2), R.reshape(b, (1, 5, 1, 1)))
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 3, 4, 8), "float32"), w: R.Tensor((5, 3, 2, 2), "float32"), b: R.Tensor((5,))):
            R.func_attr({"ahcq_param_names": ["patch.weight", "patch.bias"]})
            with R.dataflow():
                tiles = R.permute_dims(R.reshape(x, (1, 3, 2, 2, 4, 2)), [0, 2, 4, 1, 3, 5])
                patches = R.reshape(tiles, (1, 2, 4, 12))
                flat = R.reshape(w, (5, 12))
                pixels = R.ahcq.linear(patches, flat, b, name="patch", accumulate="float64")
                y = R.permute_dims(pixels, [0, 3, 1, 2])
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(canonicalise(Before), relax.transform.CanonicalizeBindings()(Expected))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "sides"), [(7, 4, 3, (16, 24)), (3, 2, 1, (8, 6)), (5, 2, 0, (9, 8))]
)
def test_a_kernel_wider_than_its_stride_becomes_a_linear_layer(kernel, stride, padding, sides):
    rng = np.random.default_rng(kernel)
    image, weight, bias = (
        rng.normal(size=size).astype(np.float32) for size in ((1, 3, *sides), (5, 3, kernel, kernel), (5,))
    )
    builder = relax.BlockBuilder()
    x, w, b = (
        relax.Var(name, relax.TensorType(value.shape, "float32"))
        for name, value in (("x", image), ("w", weight), ("b", bias))
    )
    with builder.function(
        "main", [x, w, b], attrs={"ahcq_param_names": ["patch.weight", "patch.bias"], "num_input": 1}
    ):
        with builder.dataflow():
            product = relax.op.nn.conv2d(x, w, strides=stride, padding=padding)
            y = builder.emit_output(relax.op.add(product, relax.op.reshape(b, (1, 5, 1, 1))))
        builder.emit_func_output(y)
    canonical = canonicalise(builder.get())
    assert "conv2d" not in canonical.script(show_meta=False)
    result = TorchExecutor(canonical, {"w": weight, "b": bias}).run("main", image)
    expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (image, weight, bias)), stride=stride, padding=padding)
    torch.testing.assert_close(torch.as_tensor(result), expected, atol=1e-5, rtol=1e-5)


def test_a_convolution_without_bias_that_keeps_the_size_has_its_channels_last():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4, 6, 6), "float32"), w: R.Tensor((8, 4, 3, 3), "float32")):
            R.func_attr({"ahcq_param_names": ["neck.weight"]})
            with R.dataflow():
                y = R.nn.conv2d(x, w, padding=1)
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 4, 6, 6), "float32"), w: R.Tensor((8, 4, 3, 3), "float32")):
            R.func_attr({"ahcq_param_names": ["neck.weight"]})
            with R.dataflow():
                pixels = R.ahcq.conv2d(R.permute_dims(x, [0, 2, 3, 1]), w, name="neck")
                y = R.permute_dims(pixels, [0, 3, 1, 2])
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(canonicalise(Before), Expected)


def test_channel_normalisation_becomes_a_layer_norm_over_the_last_axis():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 6, 4, 4), "float32"), w: R.Tensor((6,), "float32"), b: R.Tensor((6,), "float32")):
            R.func_attr({"ahcq_param_names": ["n.weight", "n.bias"]})
            with R.dataflow():
                mean = R.mean(x, axis=[1], keepdims=True)
                variance = R.mean(R.power(R.subtract(x, mean), R.const(2.0)), axis=[1], keepdims=True)
                normal = R.divide(R.subtract(x, mean), R.sqrt(R.add(variance, R.const(1e-6, "float32"))))
                scaled = R.multiply(R.expand_dims(R.expand_dims(w, [1]), [2]), normal)
                y = R.add(scaled, R.expand_dims(R.expand_dims(b, [1]), [2]))
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 6, 4, 4), "float32"), w: R.Tensor((6,), "float32"), b: R.Tensor((6,), "float32")):
            R.func_attr({"ahcq_param_names": ["n.weight", "n.bias"]})
            with R.dataflow():
                pixels = R.permute_dims(x, [0, 2, 3, 1])
                normal = R.nn.layer_norm(pixels, w, b, axes=[-1], epsilon=EPSILON)
                y = R.permute_dims(normal, [0, 3, 1, 2])
                R.output(y)
            return y

    after = canonicalise(Before)
    tvm.ir.assert_structural_equal(after, Expected)
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(np.float32) for s in ((1, 6, 4, 4), (6,), (6,)))
    results = [TorchExecutor(mod, {"w": w, "b": b}).run("main", x) for mod in (Before, after)]
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("function", ["encode_image", "decode", "decode_mask"])
def test_canonical_models_compute_what_the_imported_ones_do(tiny_model, prompts, function):
    imported, canonical = (
        TorchExecutor(mod, tiny_model.params) for mod in (tiny_model.module, canonicalise(named(tiny_model)))
    )
    inputs = prompts[function]
    with torch.no_grad():
        expected, got = imported.run(function, *inputs), canonical.run(function, *inputs)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_whole_models_keep_no_convolution_and_no_attention_spelled_out(tiny_model):
    canonical = canonicalise(named(tiny_model))
    text = canonical.script(show_meta=False)
    assert text.count("R.ahcq.attention") == tiny_model_attentions(tiny_model)
    assert not any(f"R.nn.{gone}(" in text for gone in ("conv2d", "conv2d_transpose", "softmax"))


def named(model):
    """The module with the names of its parameters attached."""
    from tvm_ahcq.relay_passes.rewrite import name_parameters

    return name_parameters(model.module, model.function_params)


def tiny_model_attentions(model) -> int:
    """One a block of the encoder, and seven in each of the two decoder functions."""
    blocks = sum(name.endswith("attn.rel_pos_h") for name in model.params)
    return blocks + 2 * 7
