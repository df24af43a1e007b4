"""Phase 7: operators that the accelerator takes become calls into its runtime module.

TVM's own machinery does the work: ``FuseOpsByPattern`` with the patterns of :mod:`tvm_ahcq.codegen.patterns`,
``MergeCompositeFunctions``, ``RunCodegen``. :mod:`.offload_planner` decides before, operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import GlobalVar, IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_ahcq.codegen.byoc import offloaded_operators
from tvm_ahcq.codegen.cost import CostModel
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.lower.tiles import NO_TILES, Tiles
from tvm_ahcq.codegen.patterns import patterns
from tvm_ahcq.models.description import ModelFamily
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.weights import QLinearWeight

from .offload_planner import OffloadOptions, OffloadPlanner, operand_count, symbol_of
from .rewrite import PARAM_NAMES, bindings, functions, replace_values


@dataclass(frozen=True)
class Partitioned:
    """A module with calls to the accelerator.

    Attributes
    ----------
    module : tvm.IRModule
        Its functions no longer take the parameters of what was offloaded; ``external_mods`` holds the runtime module.
    report : OffloadReport
        Decisions about all operators.
    """

    module: IRModule
    report: OffloadReport


def partition_for_ahcq(
    mod: IRModule,
    config: Config | str,
    family: ModelFamily,
    params: Mapping[str, np.ndarray | QLinearWeight] | None = None,
    cost: CostModel | None = None,
    chain: bool = False,
    tiles: Tiles = NO_TILES,
) -> Partitioned:
    """Move operators of an integer module to the accelerator.

    Parameters
    ----------
    mod : tvm.IRModule
        Realised.
    config : Config or str
        Accelerator, as named in ``configs.yaml``.
    family : ModelFamily
        Description of the model; says what symbolic dimensions count.
    params : mapping of str to numpy.ndarray or QLinearWeight
        Tensors by name of the functions' parameters. The record of a quantized weight has the name of its packed
        operand; multiplier and correction follow from it. Those of offloaded operators become part of the runtime
        module. An operator whose parameters are neither here nor constants stays on the host.
    cost : CostModel, optional
        Decides; by default that of a small board.
    chain : bool
        Keep the codes between the two layers of an MLP on the accelerator. That saves most of their traffic; but a code
        can then differ from the host's, where without it every result equals the host's in every bit.
    tiles : mapping of Shape to Tile
        Tiles that tuning chose for this configuration; other operators have the default.

    Returns
    -------
    Partitioned

    Raises
    ------
    DeviceError
        If there is no such configuration, or a program fails the verifier.
    TuningError
        If a tile does not fit its operator.
    UnsupportedModelError
        If an input has a symbolic dimension that is not described.
    """
    config = named(config) if isinstance(config, str) else config
    options = OffloadOptions(config, family, params or {}, cost or CostModel(), chain, tiles)
    plans = {var: OffloadPlanner(var.name_hint, func, options) for var, func in functions(mod)}
    decisions = tuple(decision for plan in plans.values() for decision in plan.decisions)
    report = OffloadReport(config.name, config.hash, decisions)
    return Partitioned(_offload(mod, {var: plan for var, plan in plans.items() if plan.matches}, config), report)


def _offload(mod: IRModule, plans: Mapping[GlobalVar, OffloadPlanner], config: Config) -> IRModule:
    """Return the module with calls to the accelerator, and the one runtime module that they go to."""
    if not plans:
        return mod
    stripped = {var: _without_parameters(mod, plan) for var, plan in plans.items()}
    separated: dict[GlobalVar, relax.Function] = {}
    for var, plan in plans.items():
        separated |= dict(_separated(var.name_hint, stripped[var], plan).functions)
    operators = {
        symbol_of(plan.name, name): match.operator for plan in plans.values() for name, match in plan.matches.items()
    }
    with offloaded_operators(config, operators):
        ran = relax.transform.RunCodegen(entry_functions=[plan.name for plan in plans.values()])(IRModule(separated))
    result = dict(mod.functions)
    for var, func in stripped.items():
        attributes = {name: func.attrs[name] for name in ("num_input", PARAM_NAMES)}
        result[var] = ran[var.name_hint].with_attrs(attributes)
    return IRModule(result, attrs=mod.attrs).with_attr("external_mods", ran.attrs["external_mods"])


def _without_parameters(mod: IRModule, plan: OffloadPlanner) -> relax.Function:
    """Return a function whose offloaded operators take placeholders, and that lacks the parameters not used otherwise.

    Programs hold the weights already; what TVM's patterns then match, and drop, are constants of the right types.
    """
    func = plan.func
    offloaded = {call for match in plan.matches.values() for call in match.calls}
    values = {
        binding.var: _with_placeholders(binding.value) for binding in bindings(func) if binding.value in offloaded
    }
    func = replace_values(mod, func, values)
    used, count = set(relax.analysis.free_vars(func.body)), int(func.attrs["num_input"])
    inputs, names = func.params[:count], zip(func.params[count:], func.attrs[PARAM_NAMES], strict=True)
    left = {var: str(name) for var, name in names if var in used}
    result = relax.Function([*inputs, *left], func.body, func.ret_ty, func.is_pure, func.attrs)
    return result.with_attr(PARAM_NAMES, list(left.values()))


def _with_placeholders(call: relax.Call) -> relax.Call:
    """Return a call with zeros in the place of its parameters."""
    count = operand_count(call)
    zeros = [relax.const(np.zeros(list(map(int, arg.ty.shape)), str(arg.ty.dtype))) for arg in call.args[count:]]
    return relax.Call(call.op, [*call.args[:count], *zeros], call.attrs, call.ty_args)


def _separated(name: str, func: relax.Function, plan: OffloadPlanner) -> IRModule:
    """Return a module of a function, and one for each operator that it offloads."""
    part = IRModule({"main": func.with_attr("global_symbol", "main")})

    def is_offloaded_as(kind: str) -> Callable[[relax.dpl.PatternCheckContext], bool]:
        def check(context: relax.dpl.PatternCheckContext) -> bool:
            match = plan.matches.get(str(context.matched_expr.attrs["name"]))
            return match is not None and match.kind == kind

        return check

    checked: list[tuple] = [(kind, pattern, {}, is_offloaded_as(kind)) for kind, pattern in patterns()]
    part = relax.transform.FuseOpsByPattern(checked, bind_constants=True)(part)
    part = relax.transform.MergeCompositeFunctions()(part)
    return _with_symbols(part, name)


@mutator
class _Renamer(PyExprMutator):
    """Calls functions by their new names."""

    def __init__(self, names: Mapping[GlobalVar, GlobalVar]) -> None:
        super().__init__()
        self.names = names

    def visit_global_var_(self, var: GlobalVar) -> relax.Expr:
        """Return the new name, if there is one."""
        return self.names.get(var, var)


def _with_symbols(part: IRModule, function: str) -> IRModule:
    """Return the main function under its name, offloaded functions under those of their operators."""
    names, renamed = {}, {}
    for var, func in functions(part):
        if var.name_hint == "main":
            continue
        composite = next(b.value for b in bindings(func) if isinstance(b.value, relax.Function))
        last = [b.value for b in bindings(composite) if isinstance(b.value, relax.Call)][-1]
        symbol = symbol_of(function, str(last.attrs["name"]))
        names[var] = GlobalVar(symbol)
        relax.expr._update_type(names[var], var.ty)
        renamed[names[var]] = func.with_attr("global_symbol", symbol)
    main = _Renamer(names).visit_expr(part["main"])
    return IRModule({**renamed, GlobalVar(function): main.with_attr("global_symbol", function)})
