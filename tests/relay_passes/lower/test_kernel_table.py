"""Descriptions of kernels hold what their references need."""

from __future__ import annotations

import json

import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_ahcq import kernels
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.relay_passes.lower.build import lower
from tvm_ahcq.relay_passes.lower.kernel_builder import ANY_ROWS
from tvm_ahcq.relay_passes.lower.kernel_table import describe, kernel_table
from tvm_ahcq.target import resolve_target

GENERIC = resolve_target("generic")
WINDOWS = Windows(8, 7, 3)

CASES = [
    (kernels.grouped_linear, (ANY_ROWS, LinearWorkload(32, 16, 1), "rows", GENERIC), {}),
    (kernels.linear_codes, (ANY_ROWS, LinearWorkload(32, 16, 1), 5, GENERIC), {"bits": 5}),
    (
        kernels.norm_encode,
        (56, 20, 24, 2, 4, 1e-6, WINDOWS),
        {"bits": 4, "eps": 1e-6, "windows": {"height": 8, "width": 7, "size": 3}},
    ),
    (kernels.norm_encode, (ANY_ROWS, 20, 24, 2, 4, 1e-6, None), {"bits": 4, "eps": 1e-6}),
    (kernels.log_attention, (AttentionShape(2, 9, 9, 8, None, 15), GENERIC), {"row_relative": False}),
    (
        kernels.log_attention,
        (AttentionShape(2, 9, 9, 8, None, 15, row_relative=True), GENERIC),
        {"row_relative": True},
    ),
    (kernels.pool_queries, (2, 4, 6, 8), {"h": 4, "w": 6}),
    (kernels.matmul, (ANY_ROWS, 3, 4, GENERIC, "float64"), {"accumulate": "float64"}),
    (kernels.hypernet_matmul, (ANY_ROWS, 4, 16, 8, "gelu"), {"activation": "gelu"}),
]


@pytest.mark.parametrize(("factory", "options", "expected"), CASES, ids=lambda each: getattr(each, "__name__", None))
def test_options_that_arguments_do_not_tell_are_kept(factory, options, expected) -> None:
    described = describe(factory, options)
    assert described == {"kind": factory.__name__, **expected}
    assert json.loads(json.dumps(described)) == described


@I.ir_module
class Norms:
    @R.function
    def main(x: R.Tensor((3, 20), "float32"), gamma: R.Tensor((20,), "float32"), beta: R.Tensor((20,), "float32")):
        with R.dataflow():
            first = R.nn.layer_norm(x, gamma, beta, axes=[-1], epsilon=1e-3)
            second = R.nn.layer_norm(first, gamma, beta, axes=[-1], epsilon=1e-3)
            y = R.nn.gelu(second)
            R.output(y)
        return y


def test_the_kernels_that_functions_call_are_described_by_symbol() -> None:
    assert kernel_table(lower(Norms, GENERIC)) == {
        "layer_norm_0": {"kind": "layer_norm", "eps": 1e-3},
        "gelu_0": {"kind": "gelu"},
    }
