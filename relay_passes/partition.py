"""Phase 7: operators that the accelerator takes become calls into its runtime module; a report says why others do not.

TVM's own machinery does the work: ``FuseOpsByPattern`` with the patterns of :mod:`tvm_ahcq.codegen.patterns`,
``MergeCompositeFunctions``, ``RunCodegen``. Which matches are taken is decided before, operator by operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from tvm import relax
from tvm.ir import GlobalVar, IRModule, Op
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_ahcq.codegen.byoc import constants_of, using
from tvm_ahcq.codegen.cost import CostModel
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.operators import NO_TILES
from tvm_ahcq.codegen.lower.tiles import Tiles
from tvm_ahcq.codegen.patterns import ATTENTION, LINEAR, MLP, lower, multiply_adds, patterns
from tvm_ahcq.errors import DeviceError, TuningError
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.runtime.offload import ACCELERATOR, HOST, OffloadDecision, OffloadReport

from .rewrite import PARAM_NAMES, Definitions, bindings, functions
from .symbolic_sizes import PromptSizes

CODE_BITS = 4
"""Bits of the codes that the accelerator takes at a time. Linear layers of more go there as halves; attention, and what
stays on the accelerator between two layers, has no more in this version."""

_MOVES = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.broadcast_to",
    "relax.ahcq.im2col",
)
"""Operators behind which codes are still codes."""


@dataclass(frozen=True)
class Partitioned:
    """A module with calls to the accelerator.

    Attributes
    ----------
    module : tvm.IRModule
        Its functions no longer take the parameters of what was offloaded; ``external_mods`` holds the runtime module.
    report : OffloadReport
        Where every operator went.
    """

    module: IRModule
    report: OffloadReport


def partition_for_ahcq(
    mod: IRModule,
    config: Config | str,
    params: Mapping[str, np.ndarray] | None = None,
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
    params : mapping of str to numpy.ndarray
        Tensors by name of the functions' parameters; those of offloaded operators become part of the runtime module.
        An operator whose parameters are neither here nor constants stays on the host.
    cost : CostModel, optional
        Decides; by default that of a small board.
    chain : bool
        Keep the codes between the two layers of an MLP on the accelerator. That saves most of their traffic; but a code
        can then differ from the host's, where without it every result equals the host's in every bit.
    tiles : mapping of Shape to Tile
        What tuning found for this configuration; other operators have the default.

    Returns
    -------
    Partitioned

    Raises
    ------
    DeviceError
        If there is no such configuration, or a program fails the verifier.
    TuningError
        If a tile does not fit its operator.
    """
    config = named(config) if isinstance(config, str) else config
    plans = {
        var: _Plan(var.name_hint, func, config, params or {}, cost or CostModel(), chain, tiles)
        for var, func in functions(mod)
    }
    report = OffloadReport(
        config.name, config.hash, tuple(place for plan in plans.values() for place in plan.decisions)
    )
    return Partitioned(_offload(mod, {var: plan for var, plan in plans.items() if plan.taken}, config), report)


class _Plan:
    """Decides for each operator of a function.

    Attributes
    ----------
    taken : dict of str to OffloadedOp
        Operators for the accelerator, by the name of their last call.
    kinds : dict of str to str
        Composite of each.
    places : list of OffloadDecision
        Report of the function.
    """

    def __init__(
        self,
        name: str,
        func: relax.Function,
        config: Config,
        params: Mapping[str, np.ndarray],
        cost: CostModel,
        chain: bool,
        tiles: Tiles,
    ) -> None:
        self.name, self.func, self.config, self.params, self.cost = name, func, config, params, cost
        self.tiles = tiles
        self.defs, self.sizes = Definitions(func), PromptSizes(func)
        self.taken: dict[str, OffloadedOp] = {}
        self.kinds: dict[str, str] = {}
        self.bound: set[str] = set()
        self.decisions: list[OffloadDecision] = []
        users = Counter(
            arg
            for binding in bindings(func)
            if isinstance(binding.value, relax.Call)
            for arg in binding.value.args
            if isinstance(arg, relax.Var)
        )
        self.once = {var for var, count in users.items() if count == 1}
        calls = [binding.value for binding in bindings(func) if isinstance(binding.value, relax.Call)]
        self._decide(calls, chain)

    def _decide(self, calls: list[relax.Call], chain: bool) -> None:
        inside: set[relax.Call] = set()  # what is part of an operator that was reported already
        reported: dict[relax.Call, OffloadDecision] = {}
        for call in reversed(calls):
            if call in inside or not _product(call):
                continue
            if not _heavy(call):
                reported[call] = self._unnamed(call)
                continue
            before = self._mlp(call) if chain else None
            if before is not None and (place := self._consider(MLP, [*before, call])).where == ACCELERATOR:
                inside |= set(before)
                reported[call] = place
            else:
                kind = ATTENTION if is_op(call, "relax.ahcq.log_attention") else LINEAR
                reported[call] = self._consider(kind, [call])
        others = Counter(_op_name(call) for call in calls if call not in inside and call not in reported)
        self.decisions += [reported[call] for call in calls if call in reported]
        reason = "no matrix product: the host's part in this version"
        self.decisions += [
            OffloadDecision(self.name, kind, kind, HOST, count, reason=reason) for kind, count in sorted(others.items())
        ]

    def _mlp(self, call: relax.Call) -> list[relax.Call] | None:
        """Layer and encoder in front of `call` that could stay on the accelerator with it."""
        if not is_op(call, "relax.ahcq.grouped_linear") or call.args[0] not in self.once:
            return None
        encode = self.defs.call(call.args[0], "relax.ahcq.encode_intervals")
        if encode is None or encode.args[0] not in self.once:
            return None
        first = self.defs.call(encode.args[0], "relax.ahcq.grouped_linear")
        return None if first is None else [first, encode]

    def _consider(self, kind: str, calls: list[relax.Call]) -> OffloadDecision:
        name = str(calls[-1].attrs["name"])
        if kind == MLP:
            name = f"{calls[0].attrs['name']} -> {name.rsplit('.', 1)[-1]}"
        operands = list(calls[0].args[: 3 if kind == ATTENTION else 1])
        place = OffloadDecision(
            self.name,
            name,
            kind.removeprefix("ahcq."),
            HOST,
            macs=self._macs(calls),
            batched=self.sizes.depends(operands),
        )
        if reason := self._codes(kind, calls) or self.sizes.reason(operands, rows_alone=kind != ATTENTION):
            return replace(place, reason=reason)
        arguments = [call.args[3:] if kind == ATTENTION else call.args[1:] for call in calls]
        constants = [constants_of(self.params, args) for args in arguments]
        if any(found is None for found in constants):
            return replace(place, reason="its weights are not known when it is compiled")
        try:
            numbers = [found for found in constants if found is not None]
            lowered = self._lowered(kind, calls, numbers)
            reason = self.cost.reason(lowered, place.macs)
        except DeviceError as error:
            return replace(place, reason=str(error))
        shapes = tuple(map(asdict, lowered.shapes))
        place = replace(
            place,
            bytes=lowered.transfer_bytes,
            cycles=lowered.cycles,
            shapes=shapes,
            tuned=lowered.tuned,
            repeats=lowered.repeats,
        )
        if reason:
            return replace(place, reason=reason)
        key = str(calls[-1].attrs["name"])
        self.taken[key], self.kinds[key] = lowered, kind
        self.bound |= {arg.name for args in arguments for arg in args if isinstance(arg, relax.Var)}
        return replace(place, where=ACCELERATOR, symbol=symbol_of(self.name, key))

    def _lowered(self, kind: str, calls: list[relax.Call], numbers: list[list[np.ndarray]]) -> OffloadedOp:
        """The operator as a program. A tuned tile that gives none is an error: with the default there is one."""
        operands = self._operands(calls[0])
        lowered = lower(self.config, kind, calls, numbers, operands, self.tiles, self.sizes.of_one)
        try:
            _ = lowered.estimate if lowered.tuned else None
        except DeviceError as error:
            tiles = "; ".join(f"{shape}: {self.tiles[shape]}" for shape in lowered.shapes if shape in self.tiles)
            raise TuningError(
                f"{calls[-1].attrs['name']}: what was recorded for {self.config.name} gives no program "
                f"({tiles}): {error} Tune again in an empty folder, or compile without --tuning."
            ) from error
        return lowered

    def _operands(self, call: relax.Call) -> np.ndarray | None:
        """All values of a layer's input, where these are not 4-bit codes: operands of a table that is known, or codes
        of more bits."""
        source = self.defs.through(call.args[0], *_MOVES)
        affine = self.defs.call(source, "relax.ahcq.encode_affine")
        if affine is not None and (bits := int(affine.attrs["bits"])) > CODE_BITS:
            return np.arange(1 << bits)
        encode = self.defs.call(source, "relax.ahcq.encode_intervals")
        found = None if encode is None else constants_of(self.params, [encode.args[2]])
        return None if found is None else found[0]

    def _macs(self, calls: list[relax.Call]) -> int:
        return sum(multiply_adds(call, self.sizes.of_one) for call in calls if _product(call))

    def _unnamed(self, call: relax.Call) -> OffloadDecision:
        """Of a product that is no layer of the model: both of its sides are computed, and in float."""
        kind, operands = _op_name(call), list(call.args[:2])
        name = f"{kind} {' x '.join(map(self.sizes.text, operands))}"
        return OffloadDecision(
            self.name,
            name,
            kind,
            HOST,
            macs=self._macs([call]),
            reason="floating point",
            batched=self.sizes.depends(operands),
        )

    def _codes(self, kind: str, calls: list[relax.Call]) -> str:
        """Why the operands are not codes that the accelerator takes; "" if they are."""
        if is_op(calls[-1], "relax.ahcq.linear") or is_op(calls[-1], "relax.ahcq.attention"):
            return "floating point"
        bits = [int(call.attrs["weight_bits"]) for call in calls if is_op(call, "relax.ahcq.grouped_linear")]
        for operand in calls[0].args[: 3 if kind == ATTENTION else 1]:
            producer = self.defs.call(self.defs.through(operand, *_MOVES), "relax.ahcq.encode_affine")
            if producer is None and kind == LINEAR and self._operands(calls[0]) is not None:
                continue
            if producer is None:
                return "its input is no codes"
            bits.append(int(producer.attrs["bits"]))
        if kind == LINEAR or max(bits) <= CODE_BITS:
            return ""
        return f"{max(bits)}-bit codes: on the accelerator, only linear layers take more than {CODE_BITS} bits"


def _product(call: relax.Call) -> bool:
    return _heavy(call) or is_op(call, "relax.matmul")


def _heavy(call: relax.Call) -> bool:
    """Whether it is a layer or an attention, which have names."""
    names = ("grouped_linear", "log_attention", "linear", "attention")
    return any(is_op(call, f"relax.ahcq.{name}") for name in names)


def _op_name(call: relax.Call) -> str:
    return call.op.name.removeprefix("relax.") if isinstance(call.op, Op) else "call"


def symbol_of(function: str, name: str) -> str:
    """Name of an offloaded operator in the library."""
    return f"ahcq_{function}_{name}".replace(".", "_")


def _offload(mod: IRModule, plans: Mapping[GlobalVar, _Plan], config: Config) -> IRModule:
    """The module with calls to the accelerator, and the one runtime module that they go to."""
    if not plans:
        return mod
    separated: dict[GlobalVar, relax.Function] = {}
    for var, plan in plans.items():
        separated |= dict(_separated(mod, var, plan).functions)
    planned = {
        symbol_of(var.name_hint, name): lowered for var, plan in plans.items() for name, lowered in plan.taken.items()
    }
    with using(config, planned):
        ran = relax.transform.RunCodegen(entry_functions=[var.name_hint for var in plans])(IRModule(separated))
    result = dict(mod.functions)
    for var, plan in plans.items():
        func = mod[var]
        left = [str(name) for name in func.attrs[PARAM_NAMES] if str(name) not in plan.bound]
        result[var] = ran[var.name_hint].with_attrs({"num_input": func.attrs["num_input"], PARAM_NAMES: left})
    return IRModule(result, attrs=mod.attrs).with_attr("external_mods", ran.attrs["external_mods"])


def _separated(mod: IRModule, var: GlobalVar, plan: _Plan) -> IRModule:
    """A function, and one for each operator that it offloads."""
    bound = {name: np.ascontiguousarray(plan.params[name]) for name in sorted(plan.bound)}
    func = relax.transform.BindParams(var.name_hint, bound)(mod)[var.name_hint]
    part = IRModule({"main": func.with_attr("global_symbol", "main")})

    def chosen(kind: str):
        return lambda context: plan.kinds.get(str(context.matched_expr.attrs["name"])) == kind

    wanted: list[tuple] = [(kind, pattern, {}, chosen(kind)) for kind, pattern in patterns()]
    part = relax.transform.FuseOpsByPattern(wanted, bind_constants=True)(part)
    part = relax.transform.MergeCompositeFunctions()(part)
    return _with_symbols(part, var.name_hint)


@mutator
class _Renamer(PyExprMutator):
    """Calls functions by their new names."""

    def __init__(self, names: Mapping[GlobalVar, GlobalVar]) -> None:
        super().__init__()
        self.names = names

    def visit_global_var_(self, var: GlobalVar) -> relax.Expr:
        """The new name, if there is one."""
        return self.names.get(var, var)


def _with_symbols(part: IRModule, function: str) -> IRModule:
    """The main function under its name, offloaded functions under those of their operators."""
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
