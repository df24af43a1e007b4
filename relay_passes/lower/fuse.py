"""Fusion of producers and epilogues into GEMM and encoder kernels, so that results do not pass through memory.

| operators | kernel |
|---|---|
| layer norm, split into windows or not, grouped encoder | ``norm_encode`` |
| linear layer, interval encoder | ``linear_intervals`` |
| linear layer, encoder with one scale | ``linear_codes`` |
| linear layer, merged from windows or not, residual addition | ``linear_add`` |
| linear layer, split into heads, encoders, attention, heads merged | ``linear_heads``, ``log_attention`` |
| the same, queries pooled before their encoder | ``linear_heads``, ``pool_queries``, ``log_attention`` |

Results do not change in any bit. Only results with one use are fused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import tvm
from tvm import relax

from tvm_ahcq import kernels
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.kernels.gemm.epilogue import MAX_THRESHOLDS
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.relay_passes.rewrite import bindings
from tvm_ahcq.relay_passes.shapes import Dim, dims, grid_of, product, sizes

from .kernel_builder import ANY_ROWS, KernelBuilder
from .match_self_attention import match_self_attention
from .match_windows import match_merge, match_split
from .use_chains import RESHAPES, UseChains


def fuse(builder: KernelBuilder, func: relax.Function) -> dict[relax.Var, relax.Expr]:
    """Return new values for the variables that end a group of operators for which there is a fused kernel.

    There are also values of new variables, which several kernels read.
    """
    fuser = Fuser(builder, func)
    handlers: dict[str, Callable[[relax.Var, relax.Call], relax.Expr | None]] = {
        "relax.ahcq.encode_affine": fuser.encoder,
        "relax.ahcq.encode_intervals": fuser.linear_intervals,
        "relax.add": fuser.linear_add,
        "relax.reshape": fuser.self_attention,
    }
    plan = {}
    for binding in bindings(func):
        for name, handler in handlers.items():
            if is_op(binding.value, name) and (value := handler(binding.var, binding.value)) is not None:
                plan[binding.var] = value
    return plan | fuser.shared


@dataclass(frozen=True)
class _Linear:
    """A grouped linear layer to fuse: arguments of its kernel, and its sizes."""

    args: list[relax.Expr]
    rows: Dim
    workload: LinearWorkload

    @property
    def outputs(self) -> int:
        """Outputs of the layer."""
        return self.workload.outputs


class Fuser:
    """Matches groups of operators in one function.

    Parameters
    ----------
    builder : KernelBuilder
        Builds the fused kernels.
    func : relax.Function
        Realised.
    """

    def __init__(self, builder: KernelBuilder, func: relax.Function):
        self.builder, self.chains = builder, UseChains(func)
        self.shared: dict[relax.Var, relax.Expr] = {}

    def linear(self, expr: relax.Expr) -> _Linear | None:
        """Return the linear layer that defines `expr`, seen through reshapes, if it can be fused."""
        call = self.chains.producer(self.chains.skip(expr, *RESHAPES), "relax.ahcq.grouped_linear")
        if call is None or str(call.attrs["layout"]) != "vnni16" or self.builder.target.layout != "vnni16":
            return None
        *leading, inputs = dims(call.args[0])
        workload = self.builder.linear_workload(call)
        if workload.outputs % LANES:
            return None
        matrix = relax.op.reshape(call.args[0], [product(leading), inputs])
        args = [matrix, *call.args[1:]]
        return _Linear(args, product(leading), workload)

    def options(self, linear: _Linear, rows: Dim, *more: object) -> tuple:
        """Arguments of a factory of fused linear kernels; `more` are those between the workload and the target."""
        schedule = self.builder.tuning.linear(self.builder.target, linear.workload)
        return (rows, linear.workload, *more, self.builder.target, schedule)

    def linear_intervals(self, _var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """Linear layer and interval encoder (GELU and HLUQ in one)."""
        linear = self.linear(call.args[0])
        (thresholds,) = sizes(call.args[1])
        if linear is None or thresholds > MAX_THRESHOLDS:
            return None
        options, args = self.options(linear, ANY_ROWS, thresholds), [*linear.args, *call.args[1:]]
        shape = [linear.rows, linear.outputs]
        codes = self.builder.call(kernels.linear_intervals, options, args, shape, "uint8")
        return relax.op.reshape(codes, dims(call.args[0]))

    def linear_add(self, var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """Linear layer and residual addition, with windows merged in between or not."""
        shape = dims(var)
        for residual, other in (call.args, tuple(call.args)[::-1]):
            windows, source = match_merge(self.chains, other)
            linear = self.linear(source)
            if linear is None or not isinstance(residual, relax.Var) or not _same(dims(residual), shape):
                continue
            rows, count = product(shape[:-1]), linear.rows if windows is None else product(shape[:-1])
            if not _same([count, linear.outputs], [rows, shape[-1]]):
                continue
            args = [*linear.args, relax.op.reshape(residual, [rows, linear.outputs])]
            options = (*self.options(linear, ANY_ROWS if windows is None else linear.rows), windows)
            total = self.builder.call(kernels.linear_add, options, args, [rows, linear.outputs], "float32")
            return relax.op.reshape(total, shape)
        return None

    def encoder(self, _var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """An encoder and its producer."""
        return self.linear_codes(call) if bool(call.attrs["identity"]) else self.norm_encode(call)

    def linear_codes(self, call: relax.Call) -> relax.Expr | None:
        """Linear layer and encoder with one scale."""
        linear = self.linear(call.args[0])
        if linear is None or sizes(call.args[3])[0] != 1:
            return None
        options = self.options(linear, ANY_ROWS, int(call.attrs["bits"]))
        shape = [linear.rows, linear.outputs]
        codes = self.builder.call(kernels.linear_codes, options, [*linear.args, *call.args[3:]], shape, "uint8")
        return relax.op.reshape(codes, dims(call.args[0]))

    def norm_encode(self, call: relax.Call) -> relax.Expr | None:
        """Layer norm and grouped encoder, with tokens put in window order in between or not."""
        windows, source = match_split(self.chains, call.args[0])
        norm = self.chains.producer(self.chains.skip(source, *RESHAPES), "relax.nn.layer_norm")
        if norm is None or [int(axis) for axis in norm.attrs.axes] != [-1]:
            return None
        *leading, channels = dims(norm.args[0])
        rows = product(leading)
        padded, groups = sizes(call.args[1])[0], sizes(call.args[3])[0]
        args = [relax.op.reshape(norm.args[0], [rows, channels]), *norm.args[1:], *call.args[1:]]
        options = (
            ANY_ROWS if windows is None else rows,
            int(channels),
            padded,
            groups,
            int(call.attrs["bits"]),
            float(norm.attrs.epsilon),
            windows,
        )
        shape = [*dims(call.args[0])[:-1], padded]
        codes = self.builder.call(kernels.norm_encode, options, args, [product(shape[:-1]), padded], "uint8")
        return relax.op.reshape(codes, shape)

    def self_attention(self, var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """One linear layer for queries, keys and values, their encoders, attention, and the heads merged."""
        match = match_self_attention(self.chains, var, call)
        linear = None if match is None else self.linear(match.source)
        if match is None or linear is None:
            return None
        *leading, queries, d = sizes(match.attention.args[0])
        batch, tokens = prod(leading), sizes(match.attention.args[1])[-2]
        sequences, line = batch // match.heads, match.heads * d
        if d % (LANES // 2) or line % LANES or linear.outputs != 3 * line:
            return None
        options = self.options(linear, int(linear.rows), tokens, match.heads, match.bits)
        args = [*linear.args, *match.encoder_args(3), *match.encoder_args(4)]
        qkv = relax.Var("qkv", relax.TensorType([3, batch, tokens, d], "uint8"))
        self.shared[qkv] = self.builder.call(kernels.linear_heads, options, args, [3, batch, tokens, d], "uint8")
        constants, rel = match.attention.args[3:7], list(match.attention.args[7:])
        shape = AttentionShape(
            batch,
            queries,
            tokens,
            d,
            grid_of(rel),
            sizes(constants[1])[0],
            match.heads,
            match.bits,
            bool(match.attention.attrs["row_relative"]),
        )
        args = [qkv, *rel, *constants]
        if match.pooled is not None:
            pooled = (batch, *match.pooled, d)
            args = [self.builder.call(kernels.pool_queries, pooled, [qkv], [batch, queries, d], "uint8"), *args]
        out = self.builder.call(
            kernels.log_attention, (shape, self.builder.target), args, [sequences, queries, line], "float32"
        )
        return relax.op.reshape(out, dims(var))


def _same(first: list[Dim], second: list[Dim]) -> bool:
    """True if shapes are provably equal."""
    analyzer = tvm.sym.Analyzer()
    return len(first) == len(second) and all(analyzer.can_prove_equal(a, b) for a, b in zip(first, second, strict=True))
