"""Sizes that depend on the prompts: how many there are, and how many points each has; both known when it is called."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax, tirx

from .shapes import dims, text

POINTS = 2
"""Points of the prompt that work is counted for: a click and the padding behind it, or the corners of a box."""


class PromptSizes:
    """What the symbolic sizes of a function stand for.

    Parameters
    ----------
    func : Function
        The first axis of its inputs, where that is symbolic, is the number of prompts; other symbols count points.
    """

    def __init__(self, func: relax.Function) -> None:
        shapes = [dims(param) for param in func.params if isinstance(param.ty, relax.TensorType)]
        self._prompts = {shape[0] for shape in shapes if shape and isinstance(shape[0], tirx.Var)}
        others = {dim for shape in shapes for dim in shape if isinstance(dim, tirx.Var)} - self._prompts
        self._analyzer = tvm.sym.Analyzer()
        for var in self._prompts | others:
            self._analyzer.bind(var, tirx.IntImm("int64", 1 if var in self._prompts else POINTS))

    def of_one(self, expr: relax.Expr) -> list[int]:
        """Shape of a tensor in a call with one prompt of :data:`POINTS` points."""
        return [int(self._analyzer.simplify(dim)) for dim in dims(expr)]

    def text(self, expr: relax.Expr) -> str:
        """Shape of a tensor for people, such as "[B, 4, 16]"."""
        return text(expr)

    def depends(self, operands: Sequence[relax.Expr]) -> bool:
        """Whether the size of any of them depends on the prompts."""
        return any(not isinstance(dim, tirx.IntImm) for operand in operands for dim in dims(operand))

    def reason(self, operands: Sequence[relax.Expr], rows_alone: bool) -> str:
        """Why no program of a fixed size, run for as many prompts as there are, does for tensors of these shapes.

        Parameters
        ----------
        operands : sequence of Expr
            What it takes.
        rows_alone : bool
            Whether a row of the result depends on one row of the only operand, so that any number of them does.

        Returns
        -------
        str
            "" if one does.
        """
        shapes = [dims(operand) for operand in operands]
        if rows_alone and len(shapes) == 1 and isinstance(shapes[0][-1], tirx.IntImm):
            return ""
        if not all(isinstance(dim, tirx.IntImm) for shape in shapes for dim in shape[1:]):
            return "its number of tokens depends on the number of points"
        counts = {None if isinstance(shape[0], tirx.IntImm) else shape[0] for shape in shapes}
        if len(counts) > 1 or not counts <= {None, *self._prompts}:
            return "only a part of its operands is there for each prompt"
        return ""
