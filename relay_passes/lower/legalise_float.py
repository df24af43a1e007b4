"""Lowering of float operators: to kernels of :mod:`tvm_ahcq.kernels` where there are any, else to operators of TVM."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ahcq import kernels
from tvm_ahcq.relay_passes.shapes import dims, product, rows_of

from .kernel_builder import ANY_ROWS, KernelBuilder, legalises

FREE_RESHAPES = ("relax.expand_dims", "relax.squeeze", "relax.flatten")
"""Operators that only change a shape: as ``reshape`` they cost nothing at run time."""


@legalises("relax.ahcq.linear")
def _linear(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    outputs, inputs = map(int, dims(call.args[1]))
    options = (ANY_ROWS, outputs, inputs, builder.target, str(call.attrs["accumulate"]))
    y = builder.call(kernels.matmul, options, [matrix, *call.args[1:]], [rows, outputs], "float32")
    return relax.op.reshape(y, [*dims(call.args[0])[:-1], outputs])


@legalises("relax.nn.layer_norm")
def _layer_norm(builder: KernelBuilder, call: relax.Call) -> relax.Expr | None:
    if [int(a) for a in call.attrs.axes] != [-1]:
        return None
    matrix, rows = rows_of(call.args[0])
    columns = int(dims(call.args[0])[-1])
    options = (ANY_ROWS, columns, float(call.attrs.epsilon))
    y = builder.call(kernels.layer_norm, options, [matrix, *call.args[1:]], [rows, columns], "float32")
    return relax.op.reshape(y, dims(call.args[0]))


@legalises(*FREE_RESHAPES)
def _free_reshape(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    return relax.op.reshape(call.args[0], dims(call))


@legalises("relax.ahcq.conv2d")
def _conv2d(_builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    """Float 3x3 convolution: left to TVM, channels moved first."""
    margin = int(dims(call.args[1])[-1]) // 2
    x = relax.op.permute_dims(call.args[0], [0, 3, 1, 2])
    return relax.op.permute_dims(relax.op.nn.conv2d(x, call.args[1], padding=margin), [0, 2, 3, 1])


@legalises("relax.ahcq.attention")
def _attention(_builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    """Float attention, spelled out for TVM."""
    q, k, v, *rel = call.args
    axes = list(range(len(dims(k))))
    turned = relax.op.permute_dims(k, [*axes[:-2], axes[-1], axes[-2]])
    logits = relax.op.matmul(relax.op.multiply(q, relax.const(float(call.attrs["scale"]), "float32")), turned)
    if rel:
        logits = relax.op.add(logits, _relative_logits(q, *rel))
    return relax.op.matmul(relax.op.nn.softmax(logits, axis=-1), v)


def _relative_logits(q: relax.Expr, rel_h: relax.Expr, rel_w: relax.Expr) -> relax.Expr:
    """Decomposed relative positions of ``(B, h * w, d)`` queries, ``(B, h * w, h * w)``."""
    batch, tokens, channels = dims(q)
    height, width = ((int(dims(table)[0]) + 1) // 2 for table in (rel_h, rel_w))
    grid = relax.op.reshape(q, [batch, height, width, channels])
    terms = []
    for table, size, subscripts in ((rel_h, height, "bhwc,hkc->bhwk"), (rel_w, width, "bhwc,wkc->bhwk")):
        distance = np.arange(size)[:, None] - np.arange(size) + size - 1
        rows = relax.op.take(table, relax.const(distance.astype(np.int64)), axis=0)
        terms.append(relax.op.einsum(relax.Tuple([grid, rows]), subscripts))
    by_row = relax.op.reshape(terms[0], [batch, height, width, height, 1])
    by_column = relax.op.reshape(terms[1], [batch, height, width, 1, width])
    return relax.op.reshape(relax.op.add(by_row, by_column), [batch, tokens, tokens])


@legalises("relax.nn.gelu")
def _gelu(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    columns = int(dims(call.args[0])[-1])
    y = builder.call(kernels.gelu, (ANY_ROWS, columns), [matrix], [rows, columns], "float32")
    return relax.op.reshape(y, dims(call.args[0]))


@legalises("relax.ahcq.hypernet_matmul")
def _hypernet_matmul(builder: KernelBuilder, call: relax.Call) -> relax.Expr:
    weight, x = call.args
    batch, masks, channels = dims(weight)
    options = (product([batch]), int(masks), int(dims(x)[1]), int(channels), str(call.attrs["activation"]))
    return builder.call(kernels.hypernet_matmul, options, [weight, x], [batch, masks, dims(x)[1]], "float32")
