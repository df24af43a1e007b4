"""Descriptions of kernels: what the runtime must know to compute the same, besides the arguments of a call.

:class:`.kernel_builder.KernelBuilder` attaches one to every kernel that it makes; :func:`kernel_table` collects them
for the manifest of a bundle.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import IRModule

from tvm_ahcq.kernels.attention.context import AttentionShape
from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.relay_passes.rewrite import functions

ATTRIBUTE = "ahcq.kernel"
"""Attribute of a PrimFunc that holds its description as JSON."""

_OPTIONS = ("accumulate", "activation", "bits", "eps", "h", "w")
"""Parameters of factories that neither shapes nor values of a call tell."""


def describe(factory: Callable, options: tuple) -> dict[str, Any]:
    """Return the description of ``factory(*options)``, JSON-able.

    Parameters
    ----------
    factory : callable
        One of :mod:`tvm_ahcq.kernels`.
    options : tuple
        Its arguments.

    Returns
    -------
    dict
        ``kind``, the name of the factory; of its parameters ``accumulate``, ``activation``, ``bits``, ``eps``, ``h``
        and ``w`` those that there are; ``windows``, with ``height``, ``width`` and ``size``, where rows are in window
        order; ``row_relative`` of an attention.
    """
    given = inspect.signature(factory).bind(*options).arguments
    described: dict[str, Any] = {"kind": factory.__name__}
    described |= {name: given[name] for name in _OPTIONS if name in given}
    if isinstance(windows := given.get("windows"), Windows):
        described["windows"] = asdict(windows)
    if isinstance(shape := given.get("shape"), AttentionShape):
        described["row_relative"] = shape.row_relative
    return described


def with_description(kernel: tirx.PrimFunc, factory: Callable, options: tuple) -> tirx.PrimFunc:
    """Return a kernel with the description of ``factory(*options)`` attached."""
    return kernel.with_attr(ATTRIBUTE, json.dumps(describe(factory, options)))


def kernel_table(mod: IRModule) -> dict[str, dict[str, Any]]:
    """Return the descriptions of the kernels that the functions of a lowered module call, by symbol."""
    called: set[str] = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, tvm.ir.GlobalVar):
            called.add(expr.name_hint)

    for _, func in functions(mod):
        relax.analysis.post_order_visit(func.body, visit)
    return {
        var.name_hint: json.loads(str(func.attrs[ATTRIBUTE]))
        for var, func in mod.functions.items()
        if var.name_hint in called and isinstance(func, tirx.PrimFunc) and func.attrs and ATTRIBUTE in func.attrs
    }
