"""Registers Relax operators from Python and builds calls to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.ir import Op, make_node

PREFIX = "relax.ahcq."
"""Relax prints and parses only operators whose name starts with ``relax.`` as its own."""


def register(
    name: str, arguments: Sequence[str], infer: Callable[[relax.Call], relax.TensorType], required: int
) -> None:
    """Register the pure operator ``relax.ahcq.<name>``.

    Parameters
    ----------
    name : str
        Name without the prefix.
    arguments : sequence of str
        Names of the tensor arguments, optional ones last.
    infer : callable
        Type of the result of a call.
    required : int
        Number of arguments that every call has.
    """
    full = PREFIX + name
    if full in Op.list_op_names():
        return
    tvm.ir._ffi_api.RegisterOp(full, infer.__doc__ or "")
    op = Op.get(full)
    for argument in arguments:
        op.add_argument(argument, "Tensor", "")
    op.set_num_inputs(len(arguments) if required == len(arguments) else -1)
    op.set_attrs_type_key("ir.DictAttrs")
    tvm.ir.register_op_attr(full, "FPurity", True)
    tvm.ir.register_op_attr(full, "FInferType", lambda call, _builder: infer(call))


def call(op_name: str, /, *args: relax.Expr, **attrs: Any) -> relax.Call:
    """Build a call to ``relax.ahcq.<op_name>``; arguments that are None are left out."""
    present = [arg for arg in args if arg is not None]
    return relax.Call(Op.get(PREFIX + op_name), present, attrs=make_node("ir.DictAttrs", **attrs))


def is_op(expr: relax.Expr, name: str) -> bool:
    """Return True if `expr` is a call to the operator with the full Relax name `name` (such as ``relax.add``)."""
    return isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.name == name


def tensor_type(like: relax.Expr, last: int | None = None, dtype: str | None = None) -> relax.TensorType:
    """The type of `like` with another last dimension or another dtype."""
    shape = list(like.ty.shape.values)
    if last is not None:
        shape[-1] = last
    return relax.TensorType(shape, dtype or str(like.ty.dtype))
