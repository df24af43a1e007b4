"""Legalisation of ``ahcq`` operators: calls of kernels of :mod:`tvm_ahcq.kernels`.

Every call becomes a ``call_tir`` on flattened operands. Kernels depend on shapes and options alone, so equal calls
share one. LayerNorm and float matrix products get our kernels too; the other operators are left to TVM's legalisation.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_ahcq.relay_passes.rewrite import bindings, functions, replace_values
from tvm_ahcq.target import HostTarget
from tvm_ahcq.tune.records import DEFAULTS, Tuning

from . import legalise_float, legalise_integer  # noqa: F401  (register their handlers)
from .fuse import fuse
from .kernel_builder import HANDLERS, KernelBuilder


def legalise(mod: IRModule, target: HostTarget, tuning: Tuning = DEFAULTS) -> IRModule:
    """Replace ``ahcq`` operators, layer norms and shape-only operators of every Relax function.

    Parameters
    ----------
    mod : tvm.IRModule
        A realised or a canonical float module.
    target : HostTarget
        Processor that the kernels are for.
    tuning : Tuning
        Schedules of the kernels.

    Returns
    -------
    tvm.IRModule
        The functions, and the kernels that they call.
    """
    mod = IRModule(dict(mod.functions), attrs=mod.attrs)
    while True:  # float attention turns into operators that have handlers themselves
        builder = KernelBuilder(target, tuning, (var.name_hint for var in mod.get_global_vars()))
        plans = {var: _new_values(builder, func) for var, func in functions(mod)}
        if not any(plans.values()):
            return mod
        for gvar, kernel in builder.functions().items():
            mod[gvar] = kernel
        for var, plan in plans.items():
            mod[var] = relax.analysis.remove_all_unused(replace_values(mod, mod[var], plan))


def _new_values(builder: KernelBuilder, func: relax.Function) -> dict[relax.Var, relax.Expr]:
    """New values for the variables of one function: fused kernels first, then one handler for each remaining call."""
    plan = fuse(builder, func)
    for binding in bindings(func):
        value = binding.value
        if binding.var not in plan and isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
            handler = HANDLERS.get(value.op.name)
            if handler is not None and (replacement := handler(builder, value)) is not None:
                plan[binding.var] = replacement
    return plan
