"""Shapes of Relax expressions."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TypeAlias

import tvm
from tvm import relax, tirx
from tvm.ir import Expr

Dim: TypeAlias = int | Expr
"""A dimension of a tensor, or a product of several: an int where it is constant."""


def dims(expr: relax.Expr) -> list[Expr]:
    """Return the dimensions of a tensor, constant ones as integer expressions."""
    return list(expr.ty.shape.values)


def sizes(expr: relax.Expr) -> list[int]:
    """Return the dimensions of a tensor whose shape is constant."""
    return [int(dim) for dim in dims(expr)]


def grid_of(tables: list[relax.Expr]) -> tuple[int, int] | None:
    """Return height and width of the grid of two `tables` of relative positions, ``(2 h - 1, d)`` and ``(2 w - 1, d)``.

    None if there are no tables.
    """
    if not tables:
        return None
    height, width = ((sizes(table)[0] + 1) // 2 for table in tables)
    return height, width


def is_static(*exprs: relax.Expr) -> bool:
    """True if the shapes of all `exprs` are constant."""
    return all(isinstance(dim, tirx.IntImm) for expr in exprs for dim in dims(expr))


def product(dims: Sequence[Dim]) -> Dim:
    """Return the product of dimensions: an int where all are constant, else an expression."""
    if all(isinstance(d, (int, tirx.IntImm)) for d in dims):
        return functools.reduce(operator.mul, (int(d) for d in dims), 1)
    return tvm.sym.Analyzer().simplify(functools.reduce(operator.mul, dims))


def rows_of(expr: relax.Expr) -> tuple[relax.Expr, Dim]:
    """Return `expr` as a matrix whose rows are all but the last axis, and the number of its rows."""
    *leading, last = dims(expr)
    rows = product(leading)
    return (expr if len(leading) == 1 else relax.op.reshape(expr, [rows, last])), rows


def text(expr: relax.Expr) -> str:
    """Return a shape for people, such as "[B, 4, 16]"; "[?]" where it is not known, or where `expr` is no tensor."""
    if not isinstance(expr.ty, relax.TensorType) or not isinstance(expr.ty.shape, relax.ShapeExpr):
        return "[?]"
    return f"[{', '.join(str(int(dim)) if isinstance(dim, tirx.IntImm) else str(dim) for dim in dims(expr))}]"
