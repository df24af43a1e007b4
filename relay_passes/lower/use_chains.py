"""Chains of operators whose results have one reader: what a fused kernel may replace."""

from __future__ import annotations

from collections import Counter

from tvm import relax

from tvm_ahcq.relay_passes.rewrite import Definitions, bindings

from .legalise_float import FREE_RESHAPES

RESHAPES = ("relax.reshape", *FREE_RESHAPES)
"""Operators that only change a shape."""


class UseChains:
    """Definitions and numbers of uses of the variables of a function.

    Parameters
    ----------
    func : relax.Function
        With one variable for each operator call.
    """

    def __init__(self, func: relax.Function):
        self.defs = Definitions(func)
        self.uses = _count_uses(func)

    def producer(self, expr: relax.Expr | None, *names: str) -> relax.Call | None:
        """Return the call to one of the operators `names` that defines `expr`, if `expr` has one use."""
        return self.defs.call(expr, *names) if expr is not None and self.uses[expr] == 1 else None

    def input_of(self, expr: relax.Expr | None, *names: str) -> relax.Expr | None:
        """Return the first argument of :meth:`producer`, if there is one."""
        call = self.producer(expr, *names)
        return None if call is None else call.args[0]

    def skip(self, expr: relax.Expr, *names: str) -> relax.Expr:
        """Follow first arguments through calls to operators `names` whose results have one use."""
        while (call := self.producer(expr, *names)) is not None:
            expr = call.args[0]
        return expr


def _count_uses(func: relax.Function) -> Counter:
    """Number of uses of each variable."""
    uses: Counter = Counter()

    def count(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Var):
            uses[expr] += 1

    for binding in bindings(func):
        relax.analysis.post_order_visit(binding.value, count)
    relax.analysis.post_order_visit(func.body.body, count)
    return uses
