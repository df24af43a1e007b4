"""Sizes that are known only when a function is called, by the names and meanings that the model description gives."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax, tirx

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.models.description import ModelFamily, SymbolicDim

from .shapes import Dim, dims, text


class SymbolicSizes:
    """The symbolic dimensions of a function.

    Parameters
    ----------
    func : Function
        Every symbol in the shapes of its inputs is looked up by its name.
    family : ModelFamily
        Says what the symbols count, and which sizes are typical.

    Raises
    ------
    UnsupportedModelError
        If the description has no dimension of a symbol's name.
    """

    def __init__(self, func: relax.Function, family: ModelFamily) -> None:
        inputs = [dim for param in func.params if isinstance(param.ty, relax.TensorType) for dim in dims(param)]
        self._described = {symbol: family.dim(symbol.name) for dim in inputs for symbol in _symbols(dim)}
        self._analyzer = tvm.sym.Analyzer()
        for symbol, described in self._described.items():
            self._analyzer.bind(symbol, tirx.IntImm("int64", 1 if described.batch else described.typical))

    def of_one(self, expr: relax.Expr) -> list[int]:
        """Return the shape of a tensor in a call with one item of each batch, and typical sizes otherwise.

        Raises
        ------
        UnsupportedModelError
            If it depends on a symbol that no input of the function has.
        """
        shape = [self._analyzer.simplify(dim) for dim in dims(expr)]
        if not all(map(_is_static, shape)):
            raise UnsupportedModelError(
                f"the shape {text(expr)} depends on more than the symbolic dimensions of the inputs. Give its symbols "
                "to an input, and describe them."
            )
        return [int(dim) for dim in shape]

    def text(self, expr: relax.Expr) -> str:
        """Return the shape of a tensor for people, such as "[B, 4, 16]"."""
        return text(expr)

    def depends(self, operands: Sequence[relax.Expr]) -> bool:
        """Return True if the size of any operand depends on a symbolic dimension."""
        return not all(_is_static(dim) for operand in operands for dim in dims(operand))

    def reason(self, operands: Sequence[relax.Expr], rows_alone: bool) -> str:
        """Return the reason why a program of a fixed size, run once an item of a batch, does not serve these operands.

        Parameters
        ----------
        operands : sequence of Expr
            Tensors that an operator takes.
        rows_alone : bool
            True if a row of the result depends on one row of the only operand: a program then serves any number.

        Returns
        -------
        str
            "" if it does serve them.
        """
        shapes = [dims(operand) for operand in operands]
        if rows_alone and len(shapes) == 1 and _is_static(shapes[0][-1]):
            return ""
        items = [self._batch(shape[0]) for shape in shapes]
        fixed = [shape[0] for shape, item in zip(shapes, items, strict=True) if item is None]
        varying = [dim for dim in (*fixed, *(dim for shape in shapes for dim in shape[1:])) if not _is_static(dim)]
        if varying:
            return f"its number of tokens depends on the number of {self._meanings(varying)}"
        if len(set(items)) > 1:
            meaning = next(item.meaning for item in items if item is not None)
            return f"only a part of its operands has an axis of {meaning}"
        return ""

    def _batch(self, dim: Dim) -> SymbolicDim | None:
        """Return the description of an axis of independent items; None for any other axis."""
        described = self._described.get(dim) if isinstance(dim, tirx.Var) else None
        return described if described is not None and described.batch else None

    def _meanings(self, varying: Sequence[Dim]) -> str:
        symbols = [symbol for dim in varying for symbol in _symbols(dim)]
        return " and ".join(
            dict.fromkeys(
                self._described[symbol].meaning if symbol in self._described else symbol.name for symbol in symbols
            )
        )


def _is_static(dim: Dim) -> bool:
    return isinstance(dim, (int, tirx.IntImm))


def _symbols(dim: Dim) -> list[tirx.Var]:
    return [] if _is_static(dim) else list(tirx.analysis.undefined_vars(dim))
