"""Phase 8: kernels that take in what stands before or behind them, so that it does not pass through memory.

| operators | kernel |
|---|---|
| layer norm, cut into windows or not, then a grouped encoder | ``norm_encode`` |
| linear layer, then an interval encoder | ``linear_intervals`` |
| linear layer, then an encoder with one scale | ``linear_codes`` |
| linear layer, put together from windows or not, then a residual addition | ``linear_add`` |
| linear layer, split into heads of queries, keys and values, encoders, attention, heads side by side | ``linear_heads``, ``log_attention`` |

Results do not change in any bit. Only what nobody else reads is taken in.
"""  # noqa: E501

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import relax, tirx

from tvm_ahcq import kernels
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.kernels.gemm.epilogue import MAX_THRESHOLDS
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.relay_passes.rewrite import Definitions, bindings
from tvm_ahcq.relay_passes.shapes import Dim, dims, grid_of, product, sizes

from .kernel_builder import ANY_ROWS, KernelBuilder

RESHAPES = ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten")


def fuse(builder: KernelBuilder, func: relax.Function) -> dict[relax.Var, relax.Expr]:
    """New values for the variables that end a group of operators with a kernel of its own."""
    fuser = Fuser(builder, func)
    handlers: dict[str, Callable[[relax.Var, relax.Call], relax.Expr | None]] = {
        "relax.ahcq.encode_affine": fuser.encoded,
        "relax.ahcq.encode_intervals": fuser.linear_intervals,
        "relax.add": fuser.linear_add,
        "relax.reshape": fuser.self_attention,
    }
    plan = {}
    for binding in bindings(func):
        for name, handler in handlers.items():
            if is_op(binding.value, name) and (value := handler(binding.var, binding.value)) is not None:
                plan[binding.var] = value
    return plan


@dataclass(frozen=True)
class _Linear:
    """A grouped linear layer that a kernel takes in: its arguments as a kernel has them, and its sizes."""

    args: list[relax.Expr]
    rows: Dim
    workload: LinearWorkload

    @property
    def outputs(self) -> int:
        """Outputs of the layer."""
        return self.workload.outputs


class Fuser:
    """Finds groups of operators in one function."""

    def __init__(self, builder: KernelBuilder, func: relax.Function):
        self.builder, self.defs = builder, Definitions(func)
        self.uses = _uses(func)

    def only(self, expr: relax.Expr, *names: str) -> relax.Call | None:
        """The call to one of the operators `names` that defines `expr`, if nothing else reads it."""
        return self.defs.call(expr, *names) if self.uses[expr] == 1 else None

    def upwards(self, expr: relax.Expr, *names: str) -> relax.Expr:
        """Follow first arguments through operators `names` that nothing else reads."""
        while (call := self.only(expr, *names)) is not None:
            expr = call.args[0]
        return expr

    def linear(self, expr: relax.Expr) -> _Linear | None:
        """The linear layer that defines `expr`, if a kernel can take it in."""
        call = self.only(expr, "relax.ahcq.grouped_linear")
        if call is None or str(call.attrs["layout"]) != "vnni16" or self.builder.target.layout != "vnni16":
            return None
        groups, outputs = sizes(call.args[3])
        *leading, inputs = dims(call.args[0])
        if outputs % LANES:
            return None
        matrix = relax.op.reshape(call.args[0], [product(leading), inputs])
        args = [matrix, *call.args[1:]]
        workload = LinearWorkload(outputs, int(inputs), groups, int(call.attrs["weight_bits"]))
        return _Linear(args, product(leading), workload)

    def options(self, linear: _Linear, rows: Dim, *more: object) -> tuple:
        """Arguments of a factory of fused linear kernels; `more` are those between the workload and the target."""
        schedule = self.builder.tuning.linear(self.builder.target, linear.workload)
        return (rows, linear.workload, *more, self.builder.target, schedule)

    def linear_intervals(self, _var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """Linear layer and interval encoder (GELU and HLUQ in one)."""
        linear = self.linear(self.upwards(call.args[0], *RESHAPES))
        (thresholds,) = sizes(call.args[1])
        if linear is None or thresholds > MAX_THRESHOLDS:
            return None
        options, args = self.options(linear, ANY_ROWS, thresholds), [*linear.args, *call.args[1:]]
        shape = [linear.rows, linear.outputs]
        codes = self.builder.call(kernels.linear_intervals, options, args, shape, "uint8")
        return relax.op.reshape(codes, dims(call.args[0]))

    def linear_add(self, var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """Linear layer and residual addition, which may put windows together."""
        shape = dims(var)
        for residual, other in (call.args, tuple(call.args)[::-1]):
            windows, source = self.from_windows(other)
            linear = self.linear(self.upwards(source, *RESHAPES))
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

    def encoded(self, _var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """What an encoder reads, and the encoder."""
        return self.linear_codes(call) if bool(call.attrs["identity"]) else self.norm_encode(call)

    def linear_codes(self, call: relax.Call) -> relax.Expr | None:
        """Linear layer and encoder with one scale."""
        linear = self.linear(self.upwards(call.args[0], *RESHAPES))
        if linear is None or sizes(call.args[3])[0] != 1:
            return None
        options = self.options(linear, ANY_ROWS, int(call.attrs["bits"]))
        shape = [linear.rows, linear.outputs]
        codes = self.builder.call(kernels.linear_codes, options, [*linear.args, *call.args[3:]], shape, "uint8")
        return relax.op.reshape(codes, dims(call.args[0]))

    def norm_encode(self, call: relax.Call) -> relax.Expr | None:
        """Layer norm and grouped encoder, between which tokens may be put in window order."""
        windows, source = self.to_windows(call.args[0])
        norm = self.only(self.upwards(source, *RESHAPES), "relax.nn.layer_norm")
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
        """One linear layer for queries, keys and values, their encoders, attention, and the heads side by side."""
        turned = self.only(call.args[0], "relax.permute_dims")
        apart = None if turned is None else self.only(turned.args[0], "relax.reshape")
        attention = None if apart is None else self.only(apart.args[0], "relax.ahcq.log_attention")
        if turned is None or apart is None or attention is None:
            return None
        if not _static(var, apart.args[0], attention.args[0]):
            return None
        encoders = (self.only(arg, "relax.ahcq.encode_affine") for arg in attention.args[:3])
        codes = [code for code in encoders if code is not None and bool(code.attrs["identity"])]
        if len(codes) < 3:
            return None
        qkv = self.heads_of([code.args[0] for code in codes])
        batch, tokens, d = sizes(attention.args[0])
        if qkv is None or d % LANES or len({int(code.attrs["bits"]) for code in codes}) > 1:
            return None
        linear, heads = qkv
        sequences, line = batch // heads, heads * d
        if not _puts_heads_together(apart, turned, var, sequences, heads, tokens, d) or linear.outputs != 3 * line:
            return None
        options = self.options(linear, int(linear.rows), tokens, heads, int(codes[0].attrs["bits"]))
        scales, zeros = ([code.args[place] for code in codes] for place in (3, 4))
        parts = self.builder.call(
            kernels.linear_heads, options, [*linear.args, *scales, *zeros], [3, batch, tokens, d], "uint8"
        )
        rel = list(attention.args[7:])
        shape = AttentionShape(batch, tokens, tokens, d, grid_of(rel), sizes(attention.args[4])[0], heads)
        args = [parts, *rel, *attention.args[3:7]]
        out = self.builder.call(
            kernels.log_attention, (shape, self.builder.target), args, [sequences, tokens, line], "float32"
        )
        return relax.op.reshape(out, dims(var))

    def heads_of(self, operands: list[relax.Expr]) -> tuple[_Linear, int] | None:
        """The linear layer that the three operands of an attention are split from, and the number of heads."""
        splits = []
        for place, operand in enumerate(operands):
            item = self.defs.of(self.upwards(operand, *RESHAPES))
            if not isinstance(item, relax.TupleGetItem) or int(item.index) != place:
                return None
            splits.append(item.tuple_value)
        split = self.defs.call(splits[0], "relax.split")
        if split is None or any(not other.same_as(splits[0]) for other in splits) or self.uses[splits[0]] != 3:
            return None
        together = self.only(split.args[0], "relax.reshape")
        turned = None if together is None else self.only(together.args[0], "relax.permute_dims")
        if turned is None or [int(a) for a in turned.attrs.axes] != [2, 0, 3, 1, 4] or int(split.attrs.axis) != 0:
            return None
        linear = self.linear(self.upwards(turned.args[0], *RESHAPES))
        _, _, three, heads, _ = dims(turned.args[0])
        return (linear, int(heads)) if linear is not None and int(three) == 3 else None

    def from_windows(self, expr: relax.Expr) -> tuple[Windows | None, relax.Expr]:
        """How `expr` is put together from windows, and the windows; or that it is not, and itself."""
        whole = self.upwards(expr, "relax.strided_slice")
        joined = self.only(whole, "relax.reshape")
        turned = None if joined is None else self.only(joined.args[0], "relax.permute_dims")
        if joined is None or turned is None or not _static(expr):
            return None, expr
        if [int(a) for a in turned.attrs.axes] != [0, 1, 3, 2, 4, 5]:
            return None, expr
        _, down, across, size, size_across, _ = sizes(turned.args[0])
        _, height, width, _ = sizes(expr)
        windows = Windows(height, width, size)
        _, height_of_all, width_of_all, _ = sizes(whole)
        fits = size == size_across and (down * size, across * size) == (height_of_all, width_of_all)
        fits = fits and (down * across, across) == (windows.per_image, windows.across)
        return (windows, turned.args[0]) if fits and self._keeps_the_start(expr) else (None, expr)

    def _keeps_the_start(self, expr: relax.Expr) -> bool:
        """Whether slices between `expr` and its source, if any, all begin at 0 and leave nothing out."""
        while (call := self.only(expr, "relax.strided_slice")) is not None:
            starts, strides = (self.defs.of(call.args[place]) for place in (2, 4))
            if any(int(value) != 0 for value in _integers(starts)):
                return False
            if any(int(value) != 1 for value in _integers(strides)):
                return False
            expr = call.args[0]
        return True

    def to_windows(self, expr: relax.Expr) -> tuple[Windows | None, relax.Expr]:
        """How `expr` is cut into windows, and from what; or that it is not, and itself."""
        cut = self.only(expr, "relax.reshape")
        turned = None if cut is None else self.only(cut.args[0], "relax.permute_dims")
        if turned is None or [int(a) for a in turned.attrs.axes] != [0, 1, 3, 2, 4, 5] or not _static(turned.args[0]):
            return None, expr
        apart = self.only(turned.args[0], "relax.reshape")
        pad = None if apart is None else self.only(apart.args[0], "relax.nn.pad")
        if apart is None:
            return None, expr
        _, down, size, across, size_across, _ = sizes(turned.args[0])
        source = apart.args[0] if pad is None else pad.args[0]
        if size != size_across or len(dims(source)) != 4 or (pad is not None and not _pads_the_end(pad)):
            return None, expr
        _, height, width, _ = sizes(source)
        windows = Windows(height, width, size)
        return (windows, source) if (down * across, across) == (windows.per_image, windows.across) else (None, expr)


def _uses(func: relax.Function) -> Counter:
    """How often each variable is read."""
    uses: Counter = Counter()

    def count(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Var):
            uses[expr] += 1

    for binding in bindings(func):
        relax.analysis.post_order_visit(binding.value, count)
    relax.analysis.post_order_visit(func.body.body, count)
    return uses


def _static(*exprs: relax.Expr) -> bool:
    return all(isinstance(dim, tirx.IntImm) for expr in exprs for dim in dims(expr))


def _same(first: list, second: list) -> bool:
    """Whether shapes are certainly equal."""
    analyzer = tvm.sym.Analyzer()
    return len(first) == len(second) and all(analyzer.can_prove_equal(a, b) for a, b in zip(first, second, strict=True))


def _integers(expr: relax.Expr) -> list[int]:
    return [int(field) for field in (expr.fields if isinstance(expr, relax.Tuple) else expr.values)]


def _pads_the_end(pad: relax.Call) -> bool:
    """Whether zeros are added at the end of axes only."""
    widths = [int(value) for value in pad.attrs.pad_width]
    constant = str(pad.attrs.pad_mode) == "constant" and float(pad.attrs.pad_value) == 0
    return constant and not any(widths[::2])


def _puts_heads_together(
    apart: relax.Call, turned: relax.Call, result: relax.Expr, sequences: int, heads: int, tokens: int, d: int
) -> bool:
    """Whether ``(sequences * heads, tokens, d)`` becomes ``(sequences, tokens, heads * d)`` by way of these."""
    shape = sizes(turned.args[0])
    axes = [int(axis) for axis in turned.attrs.axes]
    count = len(shape) - 3  # axes of a sequence's tokens
    if (
        count < 1
        or shape[:2] != [sequences, heads]
        or shape[-1] != d
        or axes != [0, *range(2, 2 + count), 1, 2 + count]
    ):
        return False
    along = 1
    for size in shape[2:-1]:
        along *= size
    return along == tokens and sizes(result)[-1] == heads * d
