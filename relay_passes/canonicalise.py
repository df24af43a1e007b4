"""Phase 1: from the operators of torch.export to named linear layers, convolutions and attention.

After this pass every matrix product with a parameter is an ``ahcq.linear`` or ``ahcq.conv2d`` that carries the name of
its module, every softmax attention is one ``ahcq.attention``, channel normalisations are ``layer_norm`` over the last
axis, and convolutions whose kernel equals their stride are linear layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from tvm import relax, tirx
from tvm.ir import IRModule

from tvm_ahcq import ir as ahcq
from tvm_ahcq.ir.register import is_op

from .rewrite import Definitions, arg, bindings, rewrite_module
from .shapes import Dim, dims

NHWC, NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def canonicalise(mod: IRModule) -> IRModule:
    """Name the layers and attentions of every Relax function, and put channels last.

    Parameters
    ----------
    mod : tvm.IRModule
        As imported; its functions carry their parameter names in the attribute ``ahcq_param_names``.

    Returns
    -------
    tvm.IRModule
        The same functions with the same signatures.
    """
    mod = relax.transform.CanonicalizeBindings()(mod)
    for matcher in (_match_linear, _match_convolution, _match_channel_norm, _match_attention, match_permutation):
        mod = rewrite_module(mod, partial(_matches, matcher=matcher))
        mod = relax.transform.CanonicalizeBindings()(mod)
    return mod


def _matches(defs: Definitions, matcher: Callable) -> dict[relax.Var, relax.Expr]:
    values = ((binding.var, matcher(defs, binding.value)) for binding in bindings(defs.func))
    return {var: value for var, value in values if value is not None}


def _module_name(defs: Definitions, weight: relax.Expr) -> str | None:
    """Return the name of the module of a weight parameter: ``a.b.weight`` -> ``a.b``."""
    name = defs.param(weight)
    return name.removesuffix(".weight") if name else None


def _either_order(call: relax.Call) -> tuple[tuple[relax.Expr, relax.Expr], ...]:
    a, b = call.args
    return (a, b), (b, a)


def _match_linear(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """Match ``matmul(x, permute_dims(weight)) + bias`` with a 2-D parameter as weight."""
    if not is_op(value, "relax.add"):
        return None
    for product, bias in _either_order(value):
        matmul = defs.call(product, "relax.matmul")
        transposed = defs.call(arg(matmul, 1), "relax.permute_dims")
        if matmul is None or transposed is None or len(dims(transposed.args[0])) != 2 or not defs.param(bias):
            continue
        if (name := _module_name(defs, transposed.args[0])) is not None:
            return ahcq.linear(matmul.args[0], transposed.args[0], bias, name=name)
    return None


def _conv_bias(defs: Definitions, value: relax.Expr, conv_op: str) -> tuple[relax.Call, relax.Expr] | None:
    """Match a convolution and its ``(O,)`` bias, which reaches the sum as ``reshape(bias, (1, O, 1, 1))``."""
    if not is_op(value, "relax.add"):
        return None
    for product, bias in _either_order(value):
        conv = defs.call(product, conv_op)
        source = defs.through(bias, "relax.reshape", "relax.expand_dims")
        if conv is not None and defs.param(source):
            return conv, source
    return None


def _match_convolution(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """Match convolutions: kernel = stride or transposed -> linear; 3x3 same -> ``ahcq.conv2d``; channels go last."""
    if (upsampling := _conv_bias(defs, value, "relax.nn.conv2d_transpose")) is not None:
        return _upsampling(defs, *upsampling)
    if (biased := _conv_bias(defs, value, "relax.nn.conv2d")) is not None:
        return _convolution(defs, *biased)
    used_with_bias = is_op(value, "relax.nn.conv2d") and value.args[1] in _biased_weights(defs)
    if is_op(value, "relax.nn.conv2d") and not used_with_bias:
        outputs = int(dims(value.args[1])[0])
        return _convolution(defs, value, relax.const(np.zeros(outputs, np.float32)), bias_free=True)
    return None


def _biased_weights(defs: Definitions) -> set[relax.Var]:
    pairs = (_conv_bias(defs, binding.value, "relax.nn.conv2d") for binding in bindings(defs.func))
    return {pair[0].args[1] for pair in pairs if pair is not None}


def _convolution(defs: Definitions, conv: relax.Call, bias: relax.Expr, bias_free: bool = False) -> relax.Expr | None:
    x, weight = conv.args
    name = _module_name(defs, weight)
    batch, channels, height, width = dims(x)
    outputs, _, kernel, _ = map(int, dims(weight))
    stride, padding = int(conv.attrs.strides[0]), [int(p) for p in conv.attrs.padding]
    if name is None or not _is_plain(conv):
        return None
    if kernel == stride and not any(padding) and _is_multiple(height, kernel) and _is_multiple(width, kernel):
        rows, columns = height // kernel, width // kernel
        patches = relax.op.reshape(x, [batch, channels, rows, kernel, columns, kernel])
        patches = relax.op.permute_dims(patches, [0, 2, 4, 1, 3, 5])
        patches = relax.op.reshape(patches, [batch, rows, columns, channels * kernel * kernel])
        if kernel == 1:
            patches = relax.op.permute_dims(x, NHWC)
        flat = relax.op.reshape(weight, [outputs, int(channels) * kernel * kernel])
        accumulate = "float64" if kernel > 1 else "float32"  # embeddings: all that follows is quantized
        return relax.op.permute_dims(ahcq.linear(patches, flat, bias, name=name, accumulate=accumulate), NCHW)
    if bias_free and stride == 1 and kernel % 2 and padding == [kernel // 2] * 4:
        return relax.op.permute_dims(ahcq.conv2d(relax.op.permute_dims(x, NHWC), weight, name=name), NCHW)
    if 1 < stride < kernel and len(set(padding)) == 1:
        return _strided(x, weight, bias, name, (stride, padding[0]))
    return None


def _strided(
    x: relax.Expr, weight: relax.Expr, bias: relax.Expr, name: str, stride_padding: tuple[int, int]
) -> relax.Expr | None:
    """Return a convolution with a kernel wider than its stride as a linear layer.

    The kernel is filled up with zeros to a multiple ``n`` of the stride. The picture becomes cells of stride x stride
    pixels; an output reads n x n neighbouring cells.
    """
    (stride, padding), (batch, channels, *sides) = stride_padding, dims(x)
    outputs, _, kernel, _ = map(int, dims(weight))
    if not all(isinstance(side, tirx.IntImm) for side in sides):
        return None
    cells = -(-kernel // stride)
    counts = [(int(side) + 2 * padding - kernel) // stride + 1 for side in sides]
    totals = [(count - 1 + cells) * stride for count in counts]
    after = [total - int(side) - padding for total, side in zip(totals, sides, strict=True)]
    if min(after) < 0:
        return None
    x = relax.op.nn.pad(x, [0, 0, 0, 0, padding, after[0], padding, after[1]])
    rows, columns = (total // stride for total in totals)
    x = relax.op.reshape(x, [batch, channels, rows, stride, columns, stride])
    x = relax.op.permute_dims(x, [0, 2, 4, 1, 3, 5])
    x = relax.op.reshape(x, [batch, rows, columns, channels * stride * stride])
    shifted = [
        relax.op.strided_slice(x, [1, 2], [i, j], [i + counts[0], j + counts[1]])
        for i in range(cells)
        for j in range(cells)
    ]
    missing = cells * stride - kernel
    flat = relax.op.nn.pad(weight, [0, 0, 0, 0, 0, missing, 0, missing])
    flat = relax.op.reshape(flat, [outputs, channels, cells, stride, cells, stride])
    flat = relax.op.permute_dims(flat, [0, 2, 4, 1, 3, 5])
    flat = relax.op.reshape(flat, [outputs, cells * cells * int(channels) * stride * stride])
    product = ahcq.linear(relax.op.concat(shifted, axis=-1), flat, bias, name=name, accumulate="float64")
    return relax.op.permute_dims(product, NCHW)


def _is_plain(conv: relax.Call) -> bool:
    """Return True for a square kernel, equal strides, no groups and no dilation."""
    *_, rows, columns = map(int, dims(conv.args[1]))
    square = rows == columns and len({int(stride) for stride in conv.attrs.strides}) == 1
    return square and int(conv.attrs.groups) == 1 and all(int(step) == 1 for step in conv.attrs.dilation)


def _is_multiple(dim: Dim, of: int) -> bool:
    return of == 1 or (isinstance(dim, tirx.IntImm) and int(dim) % of == 0)


def _upsampling(defs: Definitions, conv: relax.Call, bias: relax.Expr) -> relax.Expr | None:
    """Return a transposed convolution with kernel = stride as a linear layer to ``k * k`` pixels an input pixel."""
    x, weight = conv.args
    name = _module_name(defs, weight)
    batch, channels, height, width = dims(x)
    _, outputs, kernel, _ = map(int, dims(weight))
    if name is None or kernel != int(conv.attrs.strides[0]) or not _is_plain(conv):
        return None
    if any(int(p) for p in (*conv.attrs.padding, *conv.attrs.output_padding)):
        return None
    flat = relax.op.reshape(relax.op.permute_dims(weight, [2, 3, 1, 0]), [kernel * kernel * outputs, int(channels)])
    repeated = relax.op.reshape(
        relax.op.broadcast_to(relax.op.reshape(bias, [1, outputs]), [kernel * kernel, outputs]),
        [kernel * kernel * outputs],
    )
    pixels = ahcq.linear(relax.op.permute_dims(x, NHWC), flat, repeated, name=name)
    pixels = relax.op.reshape(pixels, [batch, height, width, kernel, kernel, outputs])
    pixels = relax.op.permute_dims(pixels, [0, 1, 3, 2, 4, 5])
    pixels = relax.op.reshape(pixels, [batch, height * kernel, width * kernel, outputs])
    return relax.op.permute_dims(pixels, NCHW)


def _match_channel_norm(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """Match a layer norm that is spelled out over axis 1: it becomes ``layer_norm`` over the last axis."""
    if not is_op(value, "relax.add"):
        return None
    for scaled, bias in _either_order(value):
        product = defs.call(scaled, "relax.multiply")
        bias = defs.through(bias, "relax.expand_dims", "relax.reshape")
        if product is None or not defs.param(bias):
            continue
        for weight, normal in _either_order(product):
            weight = defs.through(weight, "relax.expand_dims", "relax.reshape")
            ratio = defs.call(normal, "relax.divide")
            if ratio is None or not defs.param(weight):
                continue
            centred, root = defs.call(ratio.args[0], "relax.subtract"), defs.call(ratio.args[1], "relax.sqrt")
            variance = defs.call(arg(root, 0), "relax.add")
            mean = defs.call(arg(centred, 1), "relax.mean")
            if centred is None or variance is None or mean is None or [int(a) for a in mean.attrs.axis] != [1]:
                continue
            x, epsilon = centred.args[0], defs.constant(variance.args[1])
            normed = relax.op.nn.layer_norm(relax.op.permute_dims(x, NHWC), weight, bias, axes=[-1], epsilon=epsilon)
            return relax.op.permute_dims(normed, NCHW)
    return None


def _match_attention(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """Match ``matmul(softmax(logits), v)``, the scale on q or on the product, with or without relative positions."""
    if not is_op(value, "relax.matmul"):
        return None
    softmax = defs.call(value.args[0], "relax.nn.softmax")
    if softmax is None:
        return None
    logits, rel_h, rel_w, rel_query = _split_relative(defs, softmax.args[0])
    scale = 1.0
    if (ratio := defs.call(logits, "relax.divide")) is not None:
        if not (divisor := defs.constant(ratio.args[1])):
            return None
        scale, logits = 1.0 / divisor, ratio.args[0]
    product = defs.call(logits, "relax.matmul")
    key = defs.call(arg(product, 1), "relax.permute_dims")
    if product is None or key is None:
        return None
    query = product.args[0]
    if (scaled := defs.call(query, "relax.multiply")) is not None and (factor := defs.constant(scaled.args[1])):
        scale, query = scale * factor, scaled.args[0]
    if rel_query is not None and not rel_query.same_as(query):
        return None
    name = _attention_name(defs, query)
    if name is None:
        return None
    q, k, v = _same_batch([query, key.args[0], value.args[1]])
    return ahcq.attention(q, k, v, rel_h, rel_w, name=name, scale=scale)


def _same_batch(operands: list[relax.Expr]) -> list[relax.Expr]:
    """Repeat operands along leading axes of size 1 where another has more (as a matrix product broadcasts)."""
    leading = [dims(operand)[:-2] for operand in operands]
    common = [next((d for d in axis if not _is_one(d)), axis[0]) for axis in zip(*leading, strict=True)]
    return [
        operand
        if all(_is_one(repeats) or not _is_one(axis) for axis, repeats in zip(axes, common, strict=True))
        else relax.op.broadcast_to(operand, [*common, *dims(operand)[-2:]])
        for operand, axes in zip(operands, leading, strict=True)
    ]


def _is_one(dim: Dim) -> bool:
    return isinstance(dim, tirx.IntImm) and int(dim) == 1


def _split_relative(
    defs: Definitions, logits: relax.Expr
) -> tuple[relax.Expr, relax.Expr | None, relax.Expr | None, relax.Expr | None]:
    """Return logits without relative positions, and rel_h, rel_w and the query that they multiply, if there are any."""
    outer = defs.call(defs.through(logits, "relax.reshape"), "relax.add")
    inner = defs.call(arg(outer, 0), "relax.add")
    if outer is None or inner is None:
        return logits, None, None, None
    tables, query = [], None
    for term, subscripts in ((inner.args[1], "bhwc,hkc->bhwk"), (outer.args[1], "bhwc,wkc->bhwk")):
        einsum = defs.call(defs.through(term, "relax.expand_dims"), "relax.einsum")
        if einsum is None or str(einsum.attrs.subscripts) != subscripts:
            return logits, None, None, None
        r_q, gathered = defs.of(einsum.args[0]).fields
        take = defs.call(gathered, "relax.take")
        size = int(dims(gathered)[0])
        # with as many rows as distances the table was not interpolated, and row q - k + size - 1 is meant
        if take is None or not defs.param(take.args[0]) or int(dims(take.args[0])[0]) != 2 * size - 1:
            return logits, None, None, None
        tables.append(take.args[0])
        query = defs.through(r_q, "relax.reshape")
    return defs.through(inner.args[0], "relax.reshape"), tables[0], tables[1], query


def _attention_name(defs: Definitions, query: relax.Expr) -> str | None:
    """Return the name of an attention module: that of the linear layer of its query, less the last part."""
    expr = defs.of(query)
    while not is_op(expr, "relax.ahcq.linear"):
        if isinstance(expr, relax.TupleGetItem):
            value = defs.of(expr.tuple_value)
            expr = defs.of(value.fields[expr.index]) if isinstance(value, relax.Tuple) else value
        elif isinstance(expr, relax.Tuple):
            expr = defs.of(expr.fields[0])
        elif isinstance(expr, relax.Call) and expr.args:
            expr = defs.of(expr.args[0])
        else:
            return None
    return str(expr.attrs["name"]).rpartition(".")[0]


def match_permutation(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """Match two permutations in a row: they become one, or none."""
    if not is_op(value, "relax.permute_dims") or value.attrs.axes is None:
        return None
    inner = defs.call(value.args[0], "relax.permute_dims")
    if inner is None or inner.attrs.axes is None:
        return None
    axes = [int(inner.attrs.axes[int(a)]) for a in value.attrs.axes]
    return inner.args[0] if axes == list(range(len(axes))) else relax.op.permute_dims(inner.args[0], axes)
