"""Look-up of definitions and replacement of bound values, shared by the graph passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import tvm
from tvm import relax
from tvm.ir import IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_ahcq.ir.register import is_op

PARAM_NAMES = "ahcq_param_names"
"""Function attribute: stable names of a function's parameter tensors, which follow its inputs."""


def name_parameters(mod: IRModule, function_params: Mapping[str, Sequence[str]]) -> IRModule:
    """Attach the stable names of each function's parameters to it; passes read them there."""
    result = IRModule(dict(mod.functions), attrs=mod.attrs)
    for name, names in function_params.items():
        result[name] = mod[name].with_attr(PARAM_NAMES, list(names))
    return result


def arg(call: relax.Call | None, index: int) -> relax.Expr | None:
    """Return argument `index` of a call, None for None (expressions have no truth value, so chains need this)."""
    return None if call is None else call.args[index]


class Definitions:
    """The value that each variable of a function is bound to."""

    def __init__(self, func: relax.Function):
        self.func = func
        self.values = {binding.var: binding.value for binding in bindings(func)}
        names = list(func.attrs[PARAM_NAMES]) if func.attrs and PARAM_NAMES in func.attrs else []
        self.param_names = dict(zip(func.params[len(func.params) - len(names) :], map(str, names), strict=True))

    def of(self, expr: relax.Expr) -> relax.Expr:
        """Return the defining value of a variable; any other expression, and a parameter, is its own."""
        return self.values.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def call(self, expr: relax.Expr | None, *names: str) -> relax.Call | None:
        """Return the call that defines `expr` if it is to one of the operators `names`, else None."""
        value = self.of(expr)
        return value if any(is_op(value, name) for name in names) else None

    def through(self, expr: relax.Expr, *names: str) -> relax.Expr:
        """Follow the first arguments of the operators `names` upwards, as far as they go."""
        while (value := self.call(expr, *names)) is not None:
            expr = value.args[0]
        return expr

    def param(self, expr: relax.Expr) -> str | None:
        """Return the name of the parameter that `expr` is, seen through reshapes; None if it is not one."""
        return self.param_names.get(self.through(expr, "relax.reshape"))

    def constant(self, expr: relax.Expr) -> float | None:
        """Return the value of a scalar constant; None for anything else."""
        value = self.of(expr)
        if isinstance(value, tvm.ir.GenericConst) and value.value.numpy().size == 1:
            return float(value.value.numpy())
        return None


def bindings(func: relax.Function) -> Iterator[relax.VarBinding]:
    """Iterate over all variable bindings of a function, in order."""
    for block in func.body.blocks:
        yield from block.bindings


def functions(mod: IRModule) -> Iterator[tuple[tvm.ir.GlobalVar, relax.Function]]:
    """Iterate over the Relax functions of a module, in the order of their names."""
    for var in sorted(mod.get_global_vars(), key=lambda v: v.name_hint):
        if isinstance(mod[var], relax.Function):
            yield var, mod[var]


@mutator
class _Replacer(PyExprMutator):
    """Gives variables new values, which may be nested calls on variables of the old function, and on new variables.

    A new variable is one with a value that the old function does not bind: it is bound where it is first used.
    """

    def __init__(self, mod: IRModule, values: dict[relax.Var, relax.Expr], bound: set[relax.Var]):
        super().__init__(mod)
        self.replacements = values
        self.new = set(values).difference(bound)
        self.emitted: dict[relax.Var, relax.Var] = {}

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        """Bind a new variable at its first use."""
        if var not in self.new:
            return super().visit_var_(var)
        if var not in self.emitted:
            self.emitted[var] = self.builder_.emit(self.builder_.normalize(self.visit_expr(self.replacements[var])))
        return self.emitted[var]

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Emit the new value of a variable under its old kind: inside the dataflow block, or as its output."""
        value = self.replacements.get(binding.var)
        if value is None:
            super().visit_var_binding_(binding)
            return
        new_value = self.builder_.normalize(self.visit_expr(value))
        emit = self.builder_.emit if isinstance(binding.var, relax.DataflowVar) else self.builder_.emit_output
        self.set_var_remap(binding.var, emit(new_value))


def replace_values(mod: IRModule, func: relax.Function, values: dict[relax.Var, relax.Expr]) -> relax.Function:
    """Return `func` with the variables in `values` bound to new values."""
    bound = {binding.var for binding in bindings(func)}
    return _Replacer(mod, values, bound).visit_expr(func) if values else func


def rewrite_module(mod: IRModule, plan: Callable[[Definitions], dict[relax.Var, relax.Expr]]) -> IRModule:
    """Apply `plan` (new values for some variables) to every Relax function and drop what is no longer used."""
    result = IRModule(dict(mod.functions), attrs=mod.attrs)
    for var, func in functions(mod):
        result.update_func(var, replace_values(mod, func, plan(Definitions(func))))
    return relax.transform.DeadCodeElimination([var.name_hint for var, _ in functions(result)])(result)
