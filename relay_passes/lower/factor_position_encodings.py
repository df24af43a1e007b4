"""Factor positional encodings of a grid into sums of products of rows and columns.

A random Fourier encoding is ``sin(a[y] + b[x])`` and ``cos(a[y] + b[x])`` in each channel, so that each channel is a
matrix of rank 2 over the grid. The factors take 1/16 of the memory of the constant; added to activations in one loop,
their products cost no more than reading it.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_ahcq.ir.register import is_op
from tvm_ahcq.relay_passes.rewrite import Definitions, bindings, rewrite_module

_RANK = 2
_SMALLEST = 1 << 14
"""Smallest number of elements of a constant that is factored."""

_TOLERANCE = 1e-5
"""Largest error relative to the largest element: that of float32 angles of some tens, as in the encoding itself."""


def factor_position_encodings(mod: IRModule) -> IRModule:
    """Rewrite ``x + constant`` for constants ``(1, h * h, C)`` of rank 2 over the grid in every Relax function."""
    factored: dict[bytes, list[tuple[relax.Expr, relax.Expr]] | None] = {}  # equal constants must be one object
    return relax.transform.CanonicalizeBindings()(rewrite_module(mod, lambda defs: _plan(defs, factored)))


def _plan(defs: Definitions, known: dict) -> dict[relax.Var, relax.Expr]:
    plan = {}
    for binding in bindings(defs.func):
        if is_op(binding.value, "relax.add") and (value := _factored(defs, binding.value, known)) is not None:
            plan[binding.var] = value
    return plan


def _factored(defs: Definitions, value: relax.Call, known: dict) -> relax.Expr | None:
    for x, other in (value.args, list(value.args)[::-1]):
        constant = defs.of(other)
        if not isinstance(constant, tvm.ir.GenericConst) or isinstance(defs.of(x), tvm.ir.GenericConst):
            continue
        array = constant.value.numpy()
        if array.ndim != 3 or array.shape[0] != 1 or array.size < _SMALLEST or len(x.ty.shape.values) != 3:
            continue
        key = array.tobytes()
        if key not in known:
            known[key] = _products(array[0])
        if known[key] is None:
            continue
        side = round(array.shape[1] ** 0.5)
        terms = [relax.op.multiply(rows, columns) for rows, columns in known[key]]
        grid = relax.op.reshape(x, [x.ty.shape.values[0], side, side, array.shape[2]])
        return relax.op.reshape(relax.op.add(grid, relax.op.add(*terms)), list(value.ty.shape.values))
    return None


def _products(encoding: np.ndarray) -> list[tuple[relax.Expr, relax.Expr]] | None:
    """Return the :func:`factors` as pairs of constants ``(h, 1, C)`` and ``(1, h, C)``."""
    terms = factors(encoding)
    return terms and [(relax.const(r[:, None]), relax.const(c[None])) for r, c in zip(*terms, strict=True)]


def factors(encoding: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor an encoding of rank 2 over its grid.

    Parameters
    ----------
    encoding : numpy.ndarray
        ``(h * h, C)`` float32.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray) or None
        Rows and columns, ``(2, h, C)`` float32 each, with ``encoding[y * h + x] = sum over r of rows[r, y] *
        columns[r, x]``; None if there are none within the tolerance.
    """
    side = round(len(encoding) ** 0.5)
    if side * side != len(encoding):
        return None
    channels = encoding.reshape(side, side, -1).transpose(2, 0, 1).astype(np.float64)
    left, sizes, right = np.linalg.svd(channels, full_matrices=False)
    root = np.sqrt(sizes[:, :_RANK])
    rows = (left[:, :, :_RANK] * root[:, None]).transpose(2, 1, 0).astype(np.float32)
    columns = (right[:, :_RANK] * root[:, :, None]).transpose(1, 2, 0).astype(np.float32)
    rebuilt = np.einsum("ryc,rxc->cyx", rows.astype(np.float64), columns.astype(np.float64))
    if np.abs(rebuilt - channels).max() > _TOLERANCE * np.abs(channels).max():
        return None
    return np.ascontiguousarray(rows), np.ascontiguousarray(columns)
