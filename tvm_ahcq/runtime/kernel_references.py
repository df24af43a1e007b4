"""What each kind of kernel must give, in numpy: one function a kind, on the arguments of a call.

Integer kernels follow :mod:`tvm_ahcq.quantizers.core.reference` bit for bit. Kernels whose float32 arithmetic depends
on the target are compared with float64, to the tolerance that their rule states. Of large outputs, a seeded choice of
rows, heads or queries is computed, so that no call takes much more than a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.quantizers.core.reference import AttentionConstants

from .kernel_call import EXACT, Expected, KernelCall, KernelReference, grid, some
from .weights import unpack

WORK = 2**28
"""Element operations of numpy for one call."""

HEADS = 8
"""Heads of an attention, and batches of a product, that are computed however large they are, in part."""

_ROUNDING = 2.0**-23
"""Twice the relative error of one float32 rounding."""

_WIDE = 2.0**-45
"""Relative error, of the sum of all terms' sizes, that float64 arithmetic stays far below."""

Compute = Callable[[KernelCall, Mapping[str, Any]], Expected]

REFERENCES: dict[str, KernelReference] = {}
"""By the kind of kernel: the name of its factory in :mod:`tvm_ahcq.kernels`."""


def references(kind: str, rule: str = EXACT) -> Callable[[Compute], Compute]:
    """Decorator: register the reference of a kind of kernels.

    Parameters
    ----------
    kind : str
        Name of the factory.
    rule : str
        What is tolerated, for people.
    """

    def register(compute: Compute) -> Compute:
        REFERENCES[kind] = KernelReference(compute, rule)
        return compute

    return register


# ---- linear layers


def _rows(call: KernelCall, count: int) -> np.ndarray:
    """Rows, of `count`, of a linear layer to compute."""
    packed, multiplier = call.inputs[1], call.inputs[3]
    return some(count, WORK // (16 * multiplier.size + packed.size // 16))


def _linear(call: KernelCall, rows: np.ndarray) -> np.ndarray:
    """Some rows of a linear layer's outputs."""
    operands, packed, bounds, multiplier, correction, bias = call.inputs[:6]
    weight = unpack(packed, "rows" if packed.ndim == 2 else "vnni16", bias.size)
    return reference.grouped_linear(operands[rows], weight, np.diff(bounds).tolist(), multiplier, correction, bias)


@references("grouped_linear")
def _grouped_linear(call: KernelCall, _options: Mapping[str, Any]) -> Expected:
    rows = _rows(call, len(call.inputs[0]))
    return Expected(grid(rows, call.output.shape[1]), _linear(call, rows))


@references("linear_add")
def _linear_add(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    residual = call.inputs[6]
    if "windows" in options:
        order = window_order(len(residual), **options["windows"])
        if len(order) != len(call.inputs[0]):
            raise ValueError(f"{len(call.inputs[0])} rows, but its windows have {len(order)}")
        inside = np.flatnonzero(order >= 0)
        rows = inside[_rows(call, len(inside))]
        places = order[rows]
    else:
        rows = places = _rows(call, len(residual))
    return Expected(grid(places, residual.shape[1]), residual[places] + _linear(call, rows))


@references("linear_intervals")
def _linear_intervals(call: KernelCall, _options: Mapping[str, Any]) -> Expected:
    rows = _rows(call, len(call.inputs[0]))
    codes = reference.encode_intervals(_linear(call, rows), *call.inputs[6:8])
    return Expected(grid(rows, call.output.shape[1]), codes)


@references("linear_codes")
def _linear_codes(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    rows, (scale, zero) = _rows(call, len(call.inputs[0])), call.inputs[6:8]
    codes = reference.encode_uniform(_linear(call, rows), scale, zero, options["bits"])
    return Expected(grid(rows, call.output.shape[1]), codes)


@references("linear_heads")
def _linear_heads(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    """Row and column of the layer are (sequence, token) and (part, head, channel)."""
    _, batch, tokens, d = call.output.shape
    heads = batch * tokens // len(call.inputs[0])
    rows = _rows(call, len(call.inputs[0]))
    row, column = grid(rows, 3 * heads * d)
    parts = np.split(_linear(call, rows), 3, axis=1)
    quantizers = zip(parts, call.inputs[6:9], call.inputs[9:12], strict=True)
    codes = [reference.encode_uniform(y, scale, zero, options["bits"]) for y, scale, zero in quantizers]
    place = (column // (heads * d), row // tokens * heads + column // d % heads, row % tokens, column % d)
    return Expected(place, np.concatenate(codes, axis=1))


# ---- attention


@references("log_attention")
def _log_attention(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    *operands, scalars, thresholds, table, out_scale = call.inputs
    q, k, v, *relative = _separate(operands)
    constants = AttentionConstants.of(scalars, thresholds, table, float(out_scale[0]), options["row_relative"])
    (_, keys, d), value_d = k.shape, v.shape[-1]
    queries = WORK // max(1, keys * (d + value_d + 64))  # of all heads together
    heads = some(len(q), max(HEADS, queries // q.shape[1]))
    places = some(q.shape[1], queries // len(heads))
    rel_h, rel_w = relative or (None, None)
    out = reference.log_attention(q[heads][:, places], k[heads], v[heads], constants, rel_h, rel_w, places)
    beside = call.output.shape[-1] // value_d  # heads that lie side by side
    head, query, channel = grid(heads, places, value_d)
    return Expected((head // beside, query, head % beside * value_d + channel), out)


def _separate(operands: list[np.ndarray]) -> list[np.ndarray]:
    """Queries, keys and values one by one, and relative positions, whichever of them the call has together."""
    if operands[0].ndim == 4:
        return [*operands[0], *operands[1:]]
    if operands[1].ndim == 4:  # queries are pooled
        return [operands[0], *operands[1][1:], *operands[2:]]
    return operands


@references("pool_queries")
def _pool_queries(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    (operands,), height, width = call.inputs, options["h"], options["w"]
    _, batch, _, d = operands.shape
    heads = some(batch, WORK // (4 * height * width * d))
    squares = operands[0][heads].reshape(len(heads), height // 2, 2, width // 2, 2, d)
    pooled = squares.max(axis=(2, 4)).reshape(len(heads), -1, d)
    return Expected(grid(heads, pooled.shape[1], d), pooled)


# ---- encoders


@references("encode_affine")
def _encode_affine(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    x, *order, bounds, scale, zero = call.inputs
    index = order[0] if order else np.arange(x.shape[1])
    rows = some(len(x), WORK // (16 * len(index)))
    codes = reference.encode_affine(x[rows], index, np.diff(bounds).tolist(), scale, zero, options["bits"])
    return Expected(grid(rows, len(index)), codes)


@references("encode_intervals")
def _encode_intervals(call: KernelCall, _options: Mapping[str, Any]) -> Expected:
    x, thresholds, operands = call.inputs
    rows = some(len(x), WORK // (32 * x.shape[1]))
    return Expected(grid(rows, x.shape[1]), reference.encode_intervals(x[rows], thresholds, operands))


@references("norm_encode", "codes of a float64 layer norm within one float32 rounding")
def _norm_encode(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    x, gamma, beta, index, bounds, scale, zero = call.inputs
    order = window_order(len(x), **options["windows"]) if "windows" in options else np.arange(len(x))
    rows = some(len(order), WORK // (64 * len(index)))
    source = order[rows]
    codes = []
    for normed in _layer_norm_range(x[source.clip(min=0)], gamma, beta, options["eps"]):
        inside = np.where(source[:, None] >= 0, normed, 0).astype(np.float32)
        codes.append(reference.encode_affine(inside, index, np.diff(bounds).tolist(), scale, zero, options["bits"]))
    return Expected(grid(rows, len(index)), *codes)


@references("im2col")
def _im2col(call: KernelCall, _options: Mapping[str, Any]) -> Expected:
    codes, zero = call.inputs
    kernel = math.isqrt(call.output.shape[-1] // codes.shape[-1])
    images = some(len(codes), WORK // max(1, call.output[0].size))
    return Expected(grid(images, *call.output.shape[1:]), reference.im2col(codes[images], kernel, int(zero[0])))


def window_order(tokens: int, height: int, width: int, size: int) -> np.ndarray:
    """Return the token that each row in window order is: its number in image order, -1 where it fills a window up.

    Parameters
    ----------
    tokens : int
        Of all images.
    height, width : int
        Of an image, in tokens.
    size : int
        Side of a window.
    """
    down, across = -(-height // size), -(-width // size)
    numbers = np.full((tokens // (height * width), down * size, across * size), -1)
    numbers[:, :height, :width] = np.arange(tokens).reshape(-1, height, width)
    return numbers.reshape(-1, down, size, across, size).transpose(0, 1, 3, 2, 4).reshape(-1)


# ---- float32, against float64


@references("layer_norm", "float64, within one float32 rounding")
def _layer_norm(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    x, gamma, beta = call.inputs
    rows = some(len(x), WORK // (64 * x.shape[1]))
    return Expected(grid(rows, x.shape[1]), *_layer_norm_range(x[rows], gamma, beta, options["eps"]))


def _layer_norm_range(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest float64 values of a layer norm that is rounded to float32 once."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    factor = gamma / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + eps)
    terms = np.abs(wide).max(axis=1, keepdims=True) * np.abs(factor) + np.abs(beta)
    return _range(centred * factor + beta, 1, terms)


def _range(
    value: np.ndarray, roundings: int, terms: np.ndarray, more: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Values that may differ by so many roundings of the result, or of `terms` if there are several, and by `more`."""
    size = np.abs(value) if roundings == 1 else roundings * terms
    tolerance = _ROUNDING * size + _WIDE * terms + more
    return value - tolerance, value + tolerance


@references("matmul", "float64, within the rounding of its sum")
def _matmul(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    x, weight, bias = call.inputs
    rows = some(len(x), WORK // (32 * weight.shape[0] + weight.size // 4))
    left, right = x[rows].astype(np.float64), weight.astype(np.float64).T
    roundings = 1 if options["accumulate"] == "float64" else x.shape[1] + 1
    terms = np.abs(left) @ np.abs(right) + np.abs(bias)
    return Expected(grid(rows, len(bias)), *_range(left @ right + bias, roundings, terms))


_GELU_ERROR, _GELU_RELATIVE = 2e-6, 1e-6
"""Error of the kernels' approximation of the error function, absolute and of the value."""


@references("gelu", "float64, within 2e-6 and 1e-6 of the value")
def _gelu(call: KernelCall, _options: Mapping[str, Any]) -> Expected:
    (x,) = call.inputs
    rows = some(len(x), WORK // (256 * x.shape[1]))
    value = _gelu_of(x[rows])
    tolerance = _GELU_ERROR + _GELU_RELATIVE * np.abs(value)
    return Expected(grid(rows, x.shape[1]), value - tolerance, value + tolerance)


def _gelu_of(x: np.ndarray) -> np.ndarray:
    """``x / 2 * (1 + erf(x / sqrt(2)))`` in float64."""
    wide = x.astype(np.float64)
    tails = np.fromiter(map(math.erfc, (wide * -math.sqrt(0.5)).ravel()), np.float64, wide.size)
    return wide / 2 * tails.reshape(wide.shape)


@references("hypernet_matmul", "float64, within the rounding of its sum and 2e-6 of gelu")
def _hypernet_matmul(call: KernelCall, options: Mapping[str, Any]) -> Expected:
    weight, x = call.inputs
    vectors = WORK // (256 * x.shape[2])  # of all batches together
    batch = some(len(x), max(HEADS, vectors // x.shape[1]))
    pixels = some(x.shape[1], vectors // len(batch))
    left, right = weight[batch].astype(np.float64), x[batch][:, pixels].transpose(0, 2, 1)
    gelu = options["activation"] == "gelu"
    act = _gelu_of(right) if gelu else right.astype(np.float64)
    more = np.abs(left) @ (_GELU_ERROR + _GELU_RELATIVE * np.abs(act)) if gelu else 0.0
    expected = _range(left @ act, x.shape[2] + 1, np.abs(left) @ np.abs(act), more)
    return Expected(grid(batch, weight.shape[1], pixels), *expected)
