"""The registry of torch implementations of Relax operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

Handler = Callable[[SimpleNamespace, Sequence[Any]], Any]
"""``handler(attrs, args) -> value``.

``attrs`` holds the call's attributes as plain Python values (numbers, strings, tuples; dtypes as strings such as
``"float32"``; empty when the operator has none). ``args`` holds one value an argument: a torch tensor, a tuple of
values for a Relax tuple, a tuple of ints for a shape (symbolic dimensions are resolved), or a number. The result is a
tensor, or a tuple for an operator that returns one. Handlers must not write into their arguments, nor detach them from
autograd.
"""

TORCH_OPS: dict[str, Handler] = {}
"""Relax operator name -> handler; filled by :func:`torch_op`."""


def torch_op(*names: str) -> Callable[[Handler], Handler]:
    """Register the decorated function as the torch implementation of the Relax operators `names`.

    Parameters
    ----------
    *names : str
        Full operator names, such as ``"relax.matmul"`` or ``"relax.ahcq.quantize"``.

    Examples
    --------
    >>> @torch_op("relax.nn.relu")
    ... def relu(attrs, args):
    ...     return args[0].relu()
    """

    def register(handler: Handler) -> Handler:
        for name in names:
            TORCH_OPS[name] = handler
        return handler

    return register
