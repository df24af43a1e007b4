"""Sink permutations of axes towards where they are cheap or cancel. Results do not change.

The imported graph moves channels first after every convolution, as torch has them, and back for the next matrix
product. It also permutes heads before they are encoded, which moves four times the bytes of their codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tvm import relax, tirx
from tvm.ir import IRModule

from tvm_ahcq import ir as ahcq
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.kernels.common.vector import LANES
from tvm_ahcq.relay_passes.canonicalise import match_permutation
from tvm_ahcq.relay_passes.rewrite import Definitions, bindings, rewrite_module
from tvm_ahcq.relay_passes.shapes import dims

_UNARY = ("relax.nn.gelu", "relax.nn.relu")
_ENCODERS = ("relax.ahcq.encode_affine", "relax.ahcq.encode_intervals")
_MOST_ROUNDS = 8
"""Each round moves every permutation past one operator; the longest chains known take five."""


def sink_transposes(mod: IRModule) -> IRModule:
    """Rewrite every Relax function of `mod`; signatures stay."""
    matchers = (_after_unary, _after_encoding, match_permutation, _around_reshape, _before_flattening, _hypernet_matmul)
    for _ in range(_MOST_ROUNDS):
        changed = False
        for matcher in matchers:
            rewritten: list[relax.Var] = []
            mod = rewrite_module(mod, partial(_plan, matcher=matcher, rewritten=rewritten))
            mod = relax.transform.CanonicalizeBindings()(mod)
            changed |= bool(rewritten)
        if not changed:
            break
    return mod


def _plan(defs: Definitions, matcher: Callable, rewritten: list[relax.Var]) -> dict[relax.Var, relax.Expr]:
    """New values of the variables that `matcher` rewrites, which are added to `rewritten`."""
    values = ((binding.var, matcher(defs, binding.value)) for binding in bindings(defs.func))
    plan = {var: value for var, value in values if value is not None}
    rewritten += plan
    return plan


def _axes(permute: relax.Call) -> list[int]:
    rank = len(dims(permute))
    return [int(a) for a in permute.attrs.axes] if permute.attrs.axes is not None else list(range(rank))[::-1]


def _after_unary(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """``f(permute(x))`` -> ``permute(f(x))`` for element-wise f."""
    if not any(is_op(value, name) for name in _UNARY):
        return None
    permute = defs.call(value.args[0], "relax.permute_dims")
    if permute is None:
        return None
    return relax.op.permute_dims(relax.Call(value.op, [permute.args[0]], value.attrs), _axes(permute))


def _after_encoding(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """``encode(permute(x))`` -> ``permute(encode(x))`` where channels stay last: codes have a quarter of the bytes."""
    if not any(is_op(value, name) for name in _ENCODERS):
        return None
    permute = defs.call(value.args[0], "relax.permute_dims")
    if permute is None or _axes(permute)[-1] != len(dims(permute)) - 1:
        return None
    return relax.op.permute_dims(relax.Call(value.op, [permute.args[0], *value.args[1:]], value.attrs), _axes(permute))


def _around_reshape(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """``permute(reshape(permute(x)))`` -> ``reshape(x)`` where the reshape only splits or merges axes and the second
    permutation takes the first one back."""
    if not is_op(value, "relax.permute_dims"):
        return None
    reshape = defs.call(value.args[0], "relax.reshape")
    inner = None if reshape is None else defs.call(reshape.args[0], "relax.permute_dims")
    if inner is None:
        return None
    inside, outside = _axes(inner), _axes(value)
    before, after = dims(inner), dims(reshape)
    if (runs := axis_runs(before, after)) is not None:  # merged: axis j of `after` is runs[j] of `before`
        order = [inside[axis] for j in outside for axis in runs[j]]
    elif (runs := axis_runs(after, before)) is not None:  # split: axis j of `before` is runs[j] of `after`
        original = [axis for source in range(len(inside)) for axis in runs[inside.index(source)]]
        order = [original.index(axis) for axis in outside]
    else:
        return None
    return relax.op.reshape(inner.args[0], dims(value)) if order == sorted(order) else None


def axis_runs(fine: Sequence, coarse: Sequence) -> list[list[int]] | None:
    """Return the consecutive axes of `fine` that make up each axis of `coarse`, or None if they do not.

    Parameters
    ----------
    fine, coarse : sequence
        Sizes of axes, which may be symbolic.
    """
    runs, start = [], 0
    for size in coarse:
        end = start + 1
        while end <= len(fine) and not _same_size(fine[start:end], size):
            end += 1
        if end > len(fine):
            return None
        runs.append(list(range(start, end)))
        start = end
    return runs if start == len(fine) else None


def _same_size(axes: Sequence, size) -> bool:
    if len(axes) == 1 and not isinstance(size, tirx.IntImm):
        return bool(axes[0].same_as(size))
    if not isinstance(size, tirx.IntImm) or not all(isinstance(axis, tirx.IntImm) for axis in axes):
        return False
    product = 1
    for axis in axes:
        product *= int(axis)
    return product == int(size)


def _before_flattening(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """``permute(reshape(x))``, pixels flattened and moved before channels -> ``reshape(permute(x))``: the permutation
    then fuses with what computes `x`."""
    if not is_op(value, "relax.permute_dims") or _axes(value) != [0, 2, 1]:
        return None
    reshape = defs.call(value.args[0], "relax.reshape")
    if reshape is None or len(dims(reshape.args[0])) != 4:
        return None
    if axis_runs(dims(reshape.args[0]), dims(reshape)) != [[0], [1], [2, 3]]:
        return None
    return relax.op.reshape(relax.op.permute_dims(reshape.args[0], [0, 2, 3, 1]), dims(value))


def _hypernet_matmul(defs: Definitions, value: relax.Expr) -> relax.Expr | None:
    """``weight @ reshape(permute(x))`` with the pixels of channels-last `x` on the last axis, and its activation."""
    if not is_op(value, "relax.matmul"):
        return None
    weight, pixels = value.args
    reshape = defs.call(pixels, "relax.reshape")
    permute = None if reshape is None else defs.call(reshape.args[0], "relax.permute_dims")
    if permute is None or len(dims(weight)) != 3 or len(dims(permute)) != 4 or _axes(permute) != [0, 3, 1, 2]:
        return None
    if axis_runs(dims(permute), dims(pixels)) != [[0], [1], [2, 3]] or int(dims(pixels)[2]) % LANES:
        return None
    if not dims(weight)[0].same_as(dims(pixels)[0]):
        return None
    x = permute.args[0]
    gelu = defs.call(x, "relax.nn.gelu")
    source = x if gelu is None else gelu.args[0]
    batch, channels, count = dims(pixels)
    flat = relax.op.reshape(source, [batch, count, channels])
    return ahcq.hypernet_matmul(weight, flat, activation="identity" if gelu is None else "gelu")
