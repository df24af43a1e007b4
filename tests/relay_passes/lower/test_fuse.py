"""Fused kernels: where they are used, where not, and that results do not change."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import tvm_ahcq.ir  # noqa: F401  (R.ahcq)
from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.kernels import linear_add
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.relay_passes.lower import legalise as legalise_module
from tvm_ahcq.relay_passes.lower.build import generate_code, lower
from tvm_ahcq.relay_passes.lower.kernel_builder import ANY_ROWS, OPAQUE
from tvm_ahcq.relay_passes.lower.kernel_table import with_description
from tvm_ahcq.relay_passes.lower.legalise import legalise
from tvm_ahcq.relay_passes.lower.sink_transposes import sink_transposes
from tvm_ahcq.runtime.weights import QLinearWeight, expand
from tvm_ahcq.target import resolve_target


def calls(mod: tvm.IRModule, function: str) -> Counter:
    """Number of calls of each kind of kernel or operator in a function."""
    counts: Counter = Counter()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call):
            called = expr.args[0] if expr.op == tvm.ir.Op.get("relax.call_tir") else expr.op
            name = called.name_hint if isinstance(called, tvm.ir.GlobalVar) else str(getattr(called, "name", ""))
            counts[name.rpartition("_")[0] if isinstance(called, tvm.ir.GlobalVar) else name] += 1

    relax.analysis.post_order_visit(mod[function], visit)
    return counts


@pytest.fixture(scope="module")
def quantized(pictures) -> QuantizedModel:
    """A tiny model whose heads have 16 channels: one windowed block with padding, one global."""
    torch.manual_seed(0)
    sam = build_sam_vit_t(
        image_size=128, depth=2, embed_dim=32, num_heads=2, global_attn_indexes=(1,), window_size=3, prompt_dim=32
    )
    return quantize(from_module(sam.requires_grad_(False), "tiny"), pictures)


@pytest.mark.parametrize("name", ["avx512-vnni", "avx2", "amx", "aarch64"])
def test_encoder_blocks_are_a_handful_of_kernels(quantized, name: str):
    target = resolve_target(name)
    realised = quantized.realise(target.layout).module
    functions = tvm.IRModule({name: realised[name] for name in ("encode_image", "decode")})
    module = legalise(sink_transposes(functions), target)
    counts = calls(module, "encode_image")
    # four of the blocks, and the patch embedding with its positions
    blocks = {"linear_add": 5, "linear_heads": 2, "linear_intervals": 2, "norm_encode": 4, "log_attention": 2}
    assert {kind: counts[kind] for kind in blocks} == blocks
    assert not any(counts[name] for name in ("relax.nn.pad", "relax.strided_slice", "relax.split"))
    assert calls(module, "decode")["linear_codes"] == 7 * 3  # seven attentions: queries, keys and values of each


def test_fused_kernels_change_no_bit(quantized, prompts, monkeypatch):
    target = resolve_target("native")
    realised = quantized.realise(target.layout)
    module = tvm.IRModule({name: realised.module[name] for name in ("encode_image", "decode")})

    def results() -> list[np.ndarray]:
        machine = relax.VirtualMachine(generate_code(lower(module, target), target), tvm.cpu())
        outputs = []
        for function in ("encode_image", "decode"):
            tensors = []
            for record in realised.function_params[function]:
                value = realised.tensors[record]
                parts = expand(value) if isinstance(value, QLinearWeight) else (value,)
                tensors += [tvm.runtime.tensor(np.ascontiguousarray(part)) for part in parts]
            out = machine[function](*map(tvm.runtime.tensor, prompts[function]), *tensors)
            outputs += [each.numpy() for each in (out if not hasattr(out, "numpy") else [out])]
        return outputs

    fused = results()
    monkeypatch.setattr(legalise_module, "fuse", lambda *_: {})
    for got, expected in zip(fused, results(), strict=True):
        assert np.array_equal(got, expected)


@I.ir_module
class Residual:
    """A linear layer whose outputs, merged by a reshape, are added to a residual."""

    @R.function
    def main(
        x: R.Tensor((2, 3, 16), "uint8"),
        packed: R.Tensor((2, 4, 16, 4), "int8"),
        bounds: R.Tensor((2,), "int32"),
        multiplier: R.Tensor((1, 32), "float32"),
        correction: R.Tensor((1, 32), "int32"),
        bias: R.Tensor((32,), "float32"),
        residual: R.Tensor((6, 32), "float32"),
    ):
        with R.dataflow():
            y = R.ahcq.grouped_linear(
                x, packed, bounds, multiplier, correction, bias, name="fc", layout="vnni16", weight_bits=4
            )
            flat = R.reshape(y, R.shape([6, 32]))
            out = R.add(residual, flat)
            R.output(out)
        return out


@I.ir_module
class ResidualFused:
    @T.prim_func(s_tir=True)
    def linear_add_0(
        a: T.handle,
        w: T.handle,
        bounds: T.handle,
        multiplier: T.handle,
        correction: T.handle,
        bias: T.handle,
        residual: T.handle,
        out: T.handle,
    ):
        T.evaluate(0)

    @R.function
    def main(
        x: R.Tensor((2, 3, 16), "uint8"),
        packed: R.Tensor((2, 4, 16, 4), "int8"),
        bounds: R.Tensor((2,), "int32"),
        multiplier: R.Tensor((1, 32), "float32"),
        correction: R.Tensor((1, 32), "int32"),
        bias: R.Tensor((32,), "float32"),
        residual: R.Tensor((6, 32), "float32"),
    ):
        cls = ResidualFused
        with R.dataflow():
            matrix = R.reshape(x, R.shape([6, 16]))
            rows = R.reshape(residual, R.shape([6, 32]))
            total = R.call_tir(
                cls.linear_add_0,
                (matrix, packed, bounds, multiplier, correction, bias, rows),
                out_ty=R.Tensor((6, 32), dtype="float32"),
            )
            out = R.reshape(total, R.shape([6, 32]))
            R.output(out)
        return out


def test_a_linear_layer_and_a_residual_become_one_kernel():
    target, workload = resolve_target("avx2"), LinearWorkload(32, 16, 1, 4)
    expected = tvm.IRModule(dict(ResidualFused.functions))
    options = (ANY_ROWS, workload, target)
    kernel = linear_add(*options).with_attr("global_symbol", "linear_add_0").with_attr("op_pattern", OPAQUE)
    expected.update_func(expected.get_global_var("linear_add_0"), with_description(kernel, linear_add, options))
    functions = legalise(Residual, target).functions
    fused = {gvar: func for gvar, func in functions.items() if gvar.name_hint in ("main", "linear_add_0")}
    tvm.ir.assert_structural_equal(tvm.IRModule(fused), expected)


def test_results_with_two_uses_are_not_fused():
    @I.ir_module
    class Twice:
        @R.function
        def main(
            x: R.Tensor((4, 16), "uint8"),
            packed: R.Tensor((1, 4, 16, 4), "int8"),
            bounds: R.Tensor((2,), "int32"),
            multiplier: R.Tensor((1, 16), "float32"),
            correction: R.Tensor((1, 16), "int32"),
            bias: R.Tensor((16,), "float32"),
            residual: R.Tensor((4, 16), "float32"),
        ):
            with R.dataflow():
                y = R.ahcq.grouped_linear(
                    x, packed, bounds, multiplier, correction, bias, name="fc", layout="vnni16", weight_bits=4
                )
                z = R.add(residual, y)
                w = R.multiply(z, y)
                R.output(w)
            return w

    counts = calls(legalise(Twice, resolve_target("avx2")), "main")
    assert counts["grouped_linear"] == 1 and counts["linear_add"] == 0
