"""Lowering of the integer ``ahcq`` operators to the kernels of :mod:`tvm_ahcq.kernels`."""

from __future__ import annotations

from tvm import relax

from tvm_ahcq import kernels
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.relay_passes.shapes import dims, grid_of, product, rows_of

from .kernel_builder import ANY_ROWS, KernelBuilder, legalises


@legalises("relax.ahcq.encode_affine")
def _encode_affine(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    x, index, *rest = call.args
    matrix, rows = rows_of(x)
    padded, groups = int(dims(index)[0]), int(dims(call.args[3])[0])
    identity = bool(call.attrs["identity"])
    options = (ANY_ROWS, int(dims(x)[-1]), padded, groups, int(call.attrs["bits"]), identity)
    args = [matrix, *([] if identity else [index]), *rest]
    codes = builder.call(kernels.encode_affine, options, args, [rows, padded], "uint8")
    return relax.op.reshape(codes, [*dims(x)[:-1], padded])


@legalises("relax.ahcq.encode_intervals")
def _encode_intervals(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    columns = int(dims(call.args[0])[-1])
    options = (ANY_ROWS, columns, int(dims(call.args[1])[0]))
    operands = builder.call(kernels.encode_intervals, options, [matrix, *call.args[1:]], [rows, columns], "uint8")
    return relax.op.reshape(operands, dims(call.args[0]))


@legalises("relax.ahcq.im2col")
def _im2col(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    batch, *rest = dims(call.args[0])
    kernel = int(call.attrs["kernel"])
    options = (product([batch]), *map(int, rest), kernel)
    shape = [batch, *rest[:2], int(rest[2]) * kernel * kernel]
    return builder.call(kernels.im2col, options, list(call.args), shape, "uint8")


@legalises("relax.ahcq.grouped_linear")
def _grouped_linear(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    workload = builder.linear_workload(call)
    schedule = builder.tuning.linear(builder.target, workload)
    options = (ANY_ROWS, workload, str(call.attrs["layout"]), builder.target, schedule)
    y = builder.call(kernels.grouped_linear, options, [matrix, *call.args[1:]], [rows, workload.outputs], "float32")
    return relax.op.reshape(y, [*dims(call.args[0])[:-1], workload.outputs])


@legalises("relax.ahcq.log_attention")
def _log_attention(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    operands = [relax.op.reshape(arg, [product(dims(arg)[:-2]), *dims(arg)[-2:]]) for arg in call.args[:3]]
    batch = product(dims(call.args[0])[:-2])
    queries, keys = (product([dims(arg)[-2]]) for arg in call.args[:2])
    d, value_d, rel = int(dims(call.args[0])[-1]), int(dims(call.args[2])[-1]), list(call.args[7:])
    shape = AttentionShape(
        batch,
        queries,
        keys,
        d,
        grid_of(rel),
        int(dims(call.args[4])[0]),
        bits=int(call.attrs["bits"]),
        row_relative=bool(call.attrs["row_relative"]),
        value_d=value_d if value_d != d else 0,
    )
    args = [*operands, *rel, *call.args[3:7]]
    out = builder.call(kernels.log_attention, (shape, builder.target), args, [batch, queries, value_d], "float32")
    return relax.op.reshape(out, [*dims(call.args[0])[:-1], value_d])
