"""Decides for each operator of an integer function: a program for the accelerator, or a reason to stay on the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tvm import relax
from tvm.ir import GenericConst, Op

from tvm_ahcq.codegen.cost import CostModel
from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.tiles import Tiles
from tvm_ahcq.codegen.patterns import ATTENTION, LINEAR, MLP, Parameters, lower, multiply_adds
from tvm_ahcq.errors import DeviceError, TuningError
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.models.description import ModelFamily
from tvm_ahcq.runtime.offload import ACCELERATOR, HOST, OffloadDecision
from tvm_ahcq.runtime.weights import QLinearWeight

from .rewrite import Definitions, bindings
from .symbolic_sizes import SymbolicSizes

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
class OffloadOptions:
    """Inputs of the decisions besides the function.

    Attributes
    ----------
    config : Config
        Accelerator.
    family : ModelFamily
        Says what symbolic dimensions count.
    params : mapping of str to numpy.ndarray or QLinearWeight
        Parameters by name; a weight by the name of its packed operand.
    cost : CostModel
        Compares accelerator and host.
    chain : bool
        True to keep the codes between the two layers of an MLP on the accelerator.
    tiles : mapping of Shape to Tile
        Tiles that tuning chose.
    """

    config: Config
    family: ModelFamily
    params: Mapping[str, np.ndarray | QLinearWeight]
    cost: CostModel
    chain: bool
    tiles: Tiles


@dataclass(frozen=True, eq=False)
class Match:
    """An operator for the accelerator.

    Attributes
    ----------
    kind : str
        Name of the composite function.
    calls : list of Call
        Its calls, in order.
    operator : OffloadedOp
        Its program.
    """

    kind: str
    calls: list[relax.Call]
    operator: OffloadedOp


class OffloadPlanner:
    """Decides for each operator of a function.

    Parameters
    ----------
    name : str
        Name of the function.
    func : Function
        Realised.
    options : OffloadOptions
        Accelerator, parameters and policy.

    Attributes
    ----------
    matches : dict of str to Match
        Operators for the accelerator, by the name of their last call.
    decisions : list of OffloadDecision
        Report of the function, in the order of execution.
    """

    def __init__(self, name: str, func: relax.Function, options: OffloadOptions) -> None:
        self.name, self.func, self.options = name, func, options
        self.defs, self.sizes = Definitions(func), SymbolicSizes(func, options.family)
        self.matches: dict[str, Match] = {}
        self.decisions: list[OffloadDecision] = []
        calls = [binding.value for binding in bindings(func) if isinstance(binding.value, relax.Call)]
        uses = Counter(arg for call in calls for arg in call.args if isinstance(arg, relax.Var))
        self._used_once = {var for var, count in uses.items() if count == 1}
        self._decide(calls)

    def _decide(self, calls: list[relax.Call]) -> None:
        inside: set[relax.Call] = set()  # parts of an operator that was reported already
        reported: dict[relax.Call, OffloadDecision] = {}
        for call in reversed(calls):
            if call in inside or not _is_product(call):
                continue
            if not _is_layer(call):
                reported[call] = self._unnamed(call)
                continue
            before = self._mlp(call) if self.options.chain else None
            if before is not None and (decision := self._consider(MLP, [*before, call])).where == ACCELERATOR:
                inside |= set(before)
                reported[call] = decision
            else:
                kind = ATTENTION if is_op(call, "relax.ahcq.log_attention") else LINEAR
                reported[call] = self._consider(kind, [call])
        others = Counter(_op_name(call) for call in calls if call not in inside and call not in reported)
        self.decisions += [reported[call] for call in calls if call in reported]
        reason = "not a matrix product: stays on the host in this version"
        self.decisions += [
            OffloadDecision(self.name, kind, kind, HOST, count, reason=reason) for kind, count in sorted(others.items())
        ]

    def _mlp(self, call: relax.Call) -> list[relax.Call] | None:
        """Return the layer and the encoder in front of `call` that could stay on the accelerator with it."""
        if not is_op(call, "relax.ahcq.grouped_linear") or call.args[0] not in self._used_once:
            return None
        encode = self.defs.call(call.args[0], "relax.ahcq.encode_intervals")
        if encode is None or encode.args[0] not in self._used_once:
            return None
        first = self.defs.call(encode.args[0], "relax.ahcq.grouped_linear")
        return None if first is None else [first, encode]

    def _consider(self, kind: str, calls: list[relax.Call]) -> OffloadDecision:
        name = str(calls[-1].attrs["name"])
        shown = f"{calls[0].attrs['name']} -> {name.rsplit('.', 1)[-1]}" if kind == MLP else name
        operands = list(calls[0].args[: operand_count(calls[0])])
        decision = OffloadDecision(
            self.name,
            shown,
            kind.removeprefix("ahcq."),
            HOST,
            macs=self._macs(calls),
            batched=self.sizes.depends(operands),
        )
        if reason := self._codes(kind, calls) or self.sizes.reason(operands, rows_alone=kind != ATTENTION):
            return replace(decision, reason=reason)
        parameters = [self._parameters(call) for call in calls]
        known = [each for each in parameters if each is not None]
        if len(known) < len(parameters):
            return replace(decision, reason="its weights are not known at compile time")
        try:
            operator = self._lowered(kind, calls, known)
            reason = self.options.cost.reason(operator, decision.macs)
        except DeviceError as error:
            return replace(decision, reason=str(error))
        decision = replace(
            decision,
            bytes=operator.transfer_bytes,
            cycles=operator.cycles,
            shapes=operator.shapes,
            tuned=operator.tuned,
            repeats=operator.repeats,
        )
        if reason:
            return replace(decision, reason=reason)
        self.matches[name] = Match(kind, calls, operator)
        return replace(decision, where=ACCELERATOR, symbol=symbol_of(self.name, name))

    def _lowered(self, kind: str, calls: list[relax.Call], parameters: list[Parameters]) -> OffloadedOp:
        """Lower an operator. A tuned tile that gives no program is an error: with the default there is one."""
        config, tiles = self.options.config, self.options.tiles
        operator = lower(config, kind, calls, parameters, self._operands(calls[0]), tiles, self.sizes.of_one)
        try:
            _ = operator.estimate if operator.tuned else None
        except DeviceError as error:
            recorded = "; ".join(f"{shape}: {tiles[shape]}" for shape in operator.shapes if shape in tiles)
            raise TuningError(
                f"{calls[-1].attrs['name']}: what was recorded for {config.name} gives no program "
                f"({recorded}): {error} Tune again in an empty folder, or compile without --tuning."
            ) from error
        return operator

    def _parameters(self, call: relax.Call) -> Parameters | None:
        """Return the parameters of a call as numbers; None if one of them is not known."""
        if not is_op(call, "relax.ahcq.grouped_linear"):
            arrays = [self._array(arg) for arg in call.args[operand_count(call) :]]
            known = [array for array in arrays if array is not None]
            return known if len(known) == len(arrays) else None
        _, packed, *_, bias = call.args
        weight = self.options.params.get(packed.name) if isinstance(packed, relax.Var) else None
        numbers = self._array(bias)
        return LinearLayer(weight, numbers) if isinstance(weight, QLinearWeight) and numbers is not None else None

    def _array(self, arg: relax.Expr) -> np.ndarray | None:
        """Return a constant, or a parameter that is known; None for anything else."""
        if isinstance(arg, GenericConst):
            return arg.value.numpy()
        value = self.options.params.get(arg.name) if isinstance(arg, relax.Var) else None
        return value if isinstance(value, np.ndarray) else None

    def _operands(self, call: relax.Call) -> np.ndarray | None:
        """Return all values of a layer's input, where these are not 4-bit codes: operands of a table that is known, or
        codes of more bits."""
        source = self.defs.through(call.args[0], *_MOVES)
        affine = self.defs.call(source, "relax.ahcq.encode_affine")
        if affine is not None and (bits := int(affine.attrs["bits"])) > CODE_BITS:
            return np.arange(1 << bits)
        encode = self.defs.call(source, "relax.ahcq.encode_intervals")
        return None if encode is None else self._array(encode.args[2])

    def _macs(self, calls: list[relax.Call]) -> int:
        return sum(multiply_adds(call, self.sizes.of_one) for call in calls if _is_product(call))

    def _unnamed(self, call: relax.Call) -> OffloadDecision:
        """Report a product that is no layer of the model: both of its operands are computed, and in float."""
        kind, operands = _op_name(call), list(call.args[:2])
        return OffloadDecision(
            self.name,
            f"{kind} {' x '.join(map(self.sizes.text, operands))}",
            kind,
            HOST,
            macs=self._macs([call]),
            reason="floating point",
            batched=self.sizes.depends(operands),
        )

    def _codes(self, kind: str, calls: list[relax.Call]) -> str:
        """Return the reason why the operands are not codes that the accelerator takes; "" if they are."""
        if is_op(calls[-1], "relax.ahcq.linear") or is_op(calls[-1], "relax.ahcq.attention"):
            return "floating point"
        bits = [int(call.attrs["weight_bits"]) for call in calls if is_op(call, "relax.ahcq.grouped_linear")]
        for operand in calls[0].args[: operand_count(calls[0])]:
            producer = self.defs.call(self.defs.through(operand, *_MOVES), "relax.ahcq.encode_affine")
            if producer is None and kind == LINEAR and self._operands(calls[0]) is not None:
                continue
            if producer is None:
                return "its input is not quantized to codes"
            bits.append(int(producer.attrs["bits"]))
        if kind == LINEAR or max(bits) <= CODE_BITS:
            return ""
        return f"{max(bits)}-bit codes: on the accelerator, only linear layers take more than {CODE_BITS} bits"


def operand_count(call: relax.Call) -> int:
    """Return the number of computed operands of a call; its parameters stand behind them."""
    attention = is_op(call, "relax.ahcq.log_attention") or is_op(call, "relax.ahcq.attention")
    return 3 if attention else 1


def _is_product(call: relax.Call) -> bool:
    return _is_layer(call) or is_op(call, "relax.matmul")


def _is_layer(call: relax.Call) -> bool:
    """True for a layer or an attention, which have names."""
    names = ("grouped_linear", "log_attention", "linear", "attention")
    return any(is_op(call, f"relax.ahcq.{name}") for name in names)


def _op_name(call: relax.Call) -> str:
    return call.op.name.removeprefix("relax.") if isinstance(call.op, Op) else "call"


def symbol_of(function: str, name: str) -> str:
    """Return the name of an offloaded operator in the library."""
    return f"ahcq_{function}_{name}".replace(".", "_")
