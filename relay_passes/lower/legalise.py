"""Phase 8: from ``ahcq`` operators to kernels of :mod:`tvm_ahcq.kernels`.

Every call becomes a ``call_tir`` on flattened operands. Kernels depend on shapes and options alone, so equal calls
share one. LayerNorm and float matrix products get our kernels too; the other operators are left to TVM's legalisation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.ir import IRModule

from tvm_ahcq import kernels
from tvm_ahcq.relay_passes.rewrite import bindings, functions, replace_values
from tvm_ahcq.relay_passes.shapes import dims, product, rows_of
from tvm_ahcq.target import HostTarget
from tvm_ahcq.tune.records import DEFAULTS, LinearWorkload, Tuning

from .fuse import fuse

Handler = Callable[["Legaliser", relax.Call], relax.Expr]
_HANDLERS: dict[str, Handler] = {}

ANY = tirx.Var("rows", "int64")
"""Kernels of matrices take any number of rows: the operator's other sizes then decide which kernel it is."""

OPAQUE = 8
"""TVM's operator pattern of kernels that nothing fuses with."""

FREE_RESHAPES = ("relax.expand_dims", "relax.squeeze", "relax.flatten")
"""Operators that only change a shape: as ``reshape`` they cost nothing at run time."""


def legalises(*names: str) -> Callable[[Handler], Handler]:
    """Decorator: the function gives the legal form of calls to the operators `names`, or None to leave one as it is."""

    def add(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return add


def legalise(mod: IRModule, target: HostTarget, tuning: Tuning = DEFAULTS) -> IRModule:
    """Replace ``ahcq`` operators, layer norms and shape-only operators of every Relax function.

    Parameters
    ----------
    mod : tvm.IRModule
        A realised or a canonical float module.
    target : HostTarget
        Processor that the kernels are for.
    tuning : Tuning
        Schedules that were found to be better than the defaults.

    Returns
    -------
    tvm.IRModule
        The functions, and the kernels that they call.
    """
    mod = IRModule(dict(mod.functions), attrs=mod.attrs)
    while True:  # float attention turns into operators that have handlers themselves
        legaliser = Legaliser(target, tuning, (var.name_hint for var in mod.get_global_vars()))
        plans = {var: legaliser.plan(func) for var, func in functions(mod)}
        if not any(plans.values()):
            return mod
        for gvar, kernel in legaliser.builder.get().functions.items():
            mod[gvar] = kernel
        for var, plan in plans.items():
            mod[var] = relax.analysis.remove_all_unused(replace_values(mod, mod[var], plan))


class Legaliser:
    """Plans one round of replacements and collects the kernels that they call."""

    def __init__(self, target: HostTarget, tuning: Tuning, taken: Iterable[str]):
        self.target, self.tuning = target, tuning
        self.taken = set(taken)
        self.builder = relax.BlockBuilder()
        self.kernels: dict[tuple, tvm.ir.GlobalVar] = {}
        self.any = ANY

    def plan(self, func: relax.Function) -> dict[relax.Var, relax.Expr]:
        """New values for the variables of one function."""
        plan = fuse(self, func)
        for binding in bindings(func):
            value = binding.value
            if (
                binding.var not in plan
                and isinstance(value, relax.Call)
                and isinstance(value.op, tvm.ir.Op)
                and value.op.name in _HANDLERS
            ):
                replacement = _HANDLERS[value.op.name](self, value)
                if replacement is not None:
                    plan[binding.var] = replacement
        return plan

    def call(self, factory: Callable, options: tuple, args: list[relax.Expr], shape: list, dtype: str) -> relax.Call:
        """Call the kernel ``factory(*options)`` with output type (`shape`, `dtype`)."""
        key = (factory.__name__, *[str(o) if isinstance(o, tvm.ir.Expr) else o for o in options])
        if key not in self.kernels:
            name = next(n for i in itertools.count() if (n := f"{factory.__name__}_{i}") not in self.taken)
            self.taken.add(name)
            kernel = factory(*options).with_attr("global_symbol", name).with_attr("op_pattern", OPAQUE)
            self.kernels[key] = self.builder.add_func(kernel, name)
        gvar = self.kernels[key]
        return relax.call_tir(gvar, relax.Tuple(args), relax.TensorType(shape, dtype))


@legalises("relax.ahcq.encode_affine")
def _encode_affine(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    x, index, *rest = call.args
    matrix, rows = rows_of(x)
    padded, groups = int(dims(index)[0]), int(dims(call.args[3])[0])
    identity = bool(call.attrs["identity"])
    options = (ANY, int(dims(x)[-1]), padded, groups, int(call.attrs["bits"]), identity)
    args = [matrix, *([] if identity else [index]), *rest]
    codes = legaliser.call(kernels.encode_affine, options, args, [rows, padded], "uint8")
    return relax.op.reshape(codes, [*dims(x)[:-1], padded])


@legalises("relax.ahcq.encode_intervals")
def _encode_intervals(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    columns = int(dims(call.args[0])[-1])
    options = (ANY, columns, int(dims(call.args[1])[0]))
    operands = legaliser.call(kernels.encode_intervals, options, [matrix, *call.args[1:]], [rows, columns], "uint8")
    return relax.op.reshape(operands, dims(call.args[0]))


@legalises("relax.ahcq.im2col")
def _im2col(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    batch, *rest = dims(call.args[0])
    kernel = int(call.attrs["kernel"])
    options = (product([batch]), *map(int, rest), kernel)
    shape = [batch, *rest[:2], int(rest[2]) * kernel * kernel]
    return legaliser.call(kernels.im2col, options, list(call.args), shape, "uint8")


@legalises("relax.ahcq.grouped_linear")
def _grouped_linear(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    groups, outputs = map(int, dims(call.args[3]))
    layout, bits = str(call.attrs["layout"]), int(call.attrs["weight_bits"])
    inputs = int(dims(call.args[0])[-1])
    schedule = legaliser.tuning.linear(legaliser.target, LinearWorkload(outputs, inputs, groups, bits))
    options = (ANY, outputs, inputs, groups, layout, legaliser.target, bits, schedule)
    y = legaliser.call(kernels.grouped_linear, options, [matrix, *call.args[1:]], [rows, outputs], "float32")
    return relax.op.reshape(y, [*dims(call.args[0])[:-1], outputs])


@legalises("relax.ahcq.log_attention")
def _log_attention(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    operands = [relax.op.reshape(arg, [product(dims(arg)[:-2]), *dims(arg)[-2:]]) for arg in call.args[:3]]
    batch = product(dims(call.args[0])[:-2])
    queries, keys = (product([dims(arg)[-2]]) for arg in call.args[:2])
    head_dim = int(dims(call.args[0])[-1])
    rel = list(call.args[7:])
    grid = tuple((int(dims(table)[0]) + 1) // 2 for table in rel) or None
    options = (batch, queries, keys, head_dim, grid, int(dims(call.args[4])[0]), legaliser.target)
    args = [*operands, *rel, *call.args[3:7]]
    out = legaliser.call(kernels.log_attention, options, args, [batch, queries, head_dim], "float32")
    return relax.op.reshape(out, dims(call.args[0]))


@legalises("relax.ahcq.linear")
def _linear(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    outputs, inputs = map(int, dims(call.args[1]))
    options = (ANY, outputs, inputs, legaliser.target, str(call.attrs["accumulate"]))
    y = legaliser.call(kernels.matmul, options, [matrix, *call.args[1:]], [rows, outputs], "float32")
    return relax.op.reshape(y, [*dims(call.args[0])[:-1], outputs])


@legalises("relax.nn.layer_norm")
def _layer_norm(legaliser: Legaliser, call: relax.Call) -> relax.Expr | None:
    if [int(a) for a in call.attrs.axes] != [-1]:
        return None
    matrix, rows = rows_of(call.args[0])
    columns = int(dims(call.args[0])[-1])
    options = (ANY, columns, float(call.attrs.epsilon))
    y = legaliser.call(kernels.layer_norm, options, [matrix, *call.args[1:]], [rows, columns], "float32")
    return relax.op.reshape(y, dims(call.args[0]))


@legalises(*FREE_RESHAPES)
def _free_reshape(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    shape = call.ty.shape.values if isinstance(call.ty, relax.TensorType) else None
    return relax.op.reshape(call.args[0], list(shape))


@legalises("relax.ahcq.conv2d")
def _conv2d(_legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    """Float 3x3 convolution: left to TVM, channels moved first."""
    margin = int(dims(call.args[1])[-1]) // 2
    x = relax.op.permute_dims(call.args[0], [0, 3, 1, 2])
    return relax.op.permute_dims(relax.op.nn.conv2d(x, call.args[1], padding=margin), [0, 2, 3, 1])


@legalises("relax.ahcq.attention")
def _attention(_legaliser: Legaliser, call: relax.Call) -> relax.Expr:
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
