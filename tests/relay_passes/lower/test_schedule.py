"""Schedules of float operators: same results, and a parallel loop in each."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import tirx as T

from tvm_ahcq.relay_passes.lower.schedule import schedule


def legal(function, *shapes) -> tvm.IRModule:
    """Kernels that TVM makes of a Relax expression, fused."""
    builder = relax.BlockBuilder()
    variables = [relax.Var(f"x{i}", relax.TensorType(list(shape), "float32")) for i, shape in enumerate(shapes)]
    with builder.function("main", variables):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(function(*variables)))
        builder.emit_func_output(out)
    passes = [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
    return tvm.transform.Sequential(passes)(builder.get())


B, N = tirx.Var("b", "int64"), tirx.Var("n", "int64")

CASES = {
    "chain": (lambda a, b: relax.op.nn.gelu(relax.op.add(relax.op.multiply(a, b), b)), ((1, 60, 400), (1, 60, 400))),
    "tiles": (lambda a: relax.op.permute_dims(relax.op.add(a, a), [0, 2, 3, 1]), ((2, 64, 4, 48),)),
    "turned": (lambda a: relax.op.permute_dims(a, [0, 2, 1]), ((1, 205, 109),)),
    "product": (lambda a, b: relax.op.matmul(a, b), ((3, 64, 6), (3, 6, 50))),
    "flat": (lambda a: relax.op.nn.relu(a), ((30000,),)),
    "symbolic": (lambda a, b: relax.op.matmul(a, b), ((B, 64, 6), (1, 6, 50))),
}
LITTLE = {
    "chain": (lambda a, b: relax.op.add(relax.op.multiply(a, b), b), ((1, 6, 40), (1, 6, 40))),
    "turned": (lambda a: relax.op.permute_dims(a, [0, 2, 1]), ((1, 16, 32),)),
    "product": (lambda a, b: relax.op.matmul(a, b), ((3, 4, 6), (3, 6, 50))),
    "tokens": (lambda a: relax.op.nn.relu(a), ((B, N, 256),)),
}


@pytest.mark.parametrize("case, parallel", [(case, True) for case in CASES] + [(case, False) for case in LITTLE])
def test_scheduled_functions_compute_the_same_in_parallel_where_there_is_work(case, parallel):
    function, shapes = (CASES if parallel else LITTLE)[case]
    plain = legal(function, *shapes)
    scheduled = schedule(plain)
    rng = np.random.default_rng(0)
    sizes = [[dim if isinstance(dim, int) else 2 if dim.same_as(B) else 7 for dim in shape] for shape in shapes]
    arrays = [rng.normal(size=size).astype(np.float32) for size in sizes]
    results = []
    for mod in (plain, scheduled):
        machine = relax.VirtualMachine(relax.build(mod, target="llvm"), tvm.cpu())
        results.append(machine["main"](*map(tvm.runtime.tensor, arrays)).numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
    for func in scheduled.functions.values():
        if isinstance(func, tirx.PrimFunc):
            assert ("T.parallel(" in func.script()) == parallel


@I.ir_module
class ElementwiseBefore:
    @T.prim_func(s_tir=True)
    def func(a: T.Buffer((60, 400), "float32"), b: T.Buffer((60, 400), "float32"), out: T.Buffer((60, 400), "float32")):
        product = T.sblock_alloc_buffer((60, 400), "float32")
        for i, j in T.grid(60, 400):
            with T.sblock("multiply"):
                vi, vj = T.axis.remap("SS", [i, j])
                product[vi, vj] = a[vi, vj] * b[vi, vj]
        for i, j in T.grid(60, 400):
            with T.sblock("add"):
                vi, vj = T.axis.remap("SS", [i, j])
                out[vi, vj] = product[vi, vj] + b[vi, vj]


@I.ir_module
class ElementwiseScheduled:
    """One parallel loop nest, the innermost axis left to the vectoriser."""

    @T.prim_func(s_tir=True)
    def func(a: T.Buffer((60, 400), "float32"), b: T.Buffer((60, 400), "float32"), out: T.Buffer((60, 400), "float32")):
        T.func_attr({"tirx.is_scheduled": True})
        for i in T.parallel(60):
            for j in range(400):
                with T.sblock("add"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    out[vi, vj] = a[vi, vj] * b[vi, vj] + b[vi, vj]


@I.ir_module
class TransposeBefore:
    @T.prim_func(s_tir=True)
    def func(a: T.Buffer((64, 480), "float32"), out: T.Buffer((480, 64), "float32")):
        for i, j in T.grid(480, 64):
            with T.sblock("transpose"):
                vi, vj = T.axis.remap("SS", [i, j])
                out[vi, vj] = a[vj, vi]


@I.ir_module
class TransposeScheduled:
    """Square tiles of a cache line."""

    @T.prim_func(s_tir=True)
    def func(a: T.Buffer((64, 480), "float32"), out: T.Buffer((480, 64), "float32")):
        T.func_attr({"tirx.is_scheduled": True})
        for tile in T.parallel(120):
            for i, j in T.grid(16, 16):
                with T.sblock("transpose"):
                    vi = T.axis.spatial(480, tile // 4 * 16 + i)
                    vj = T.axis.spatial(64, tile % 4 * 16 + j)
                    out[vi, vj] = a[vj, vi]


@I.ir_module
class ProductBefore:
    @T.prim_func(s_tir=True)
    def func(a: T.Buffer((192, 6), "float32"), b: T.Buffer((6, 50), "float32"), out: T.Buffer((192, 50), "float32")):
        for i, j, k in T.grid(192, 50, 6):
            with T.sblock("product"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    out[vi, vj] = T.float32(0)
                out[vi, vj] = out[vi, vj] + a[vi, vk] * b[vk, vj]


@I.ir_module
class ProductScheduled:
    """The reduction outside the contiguous axis."""

    @T.prim_func(s_tir=True)
    def func(a: T.Buffer((192, 6), "float32"), b: T.Buffer((6, 50), "float32"), out: T.Buffer((192, 50), "float32")):
        T.func_attr({"tirx.is_scheduled": True})
        for i in T.parallel(192):
            for j in range(50):
                with T.sblock("product_init"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    out[vi, vj] = T.float32(0)
            for k, j in T.grid(6, 50):
                with T.sblock("product_update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    out[vi, vj] = out[vi, vj] + a[vi, vk] * b[vk, vj]


@pytest.mark.parametrize(
    "before, expected",
    [
        (ElementwiseBefore, ElementwiseScheduled),
        (TransposeBefore, TransposeScheduled),
        (ProductBefore, ProductScheduled),
    ],
    ids=["elementwise", "transpose", "product"],
)
def test_loops_are_fused_tiled_and_reordered(before, expected):
    tvm.ir.assert_structural_equal(schedule(before), expected)


def test_functions_that_are_scheduled_are_left_alone():
    mod = legal(*CASES["flat"][:1], *CASES["flat"][1])
    once = schedule(mod)
    tvm.ir.assert_structural_equal(schedule(once), once)
