"""Runs Relax functions in torch, with autograd left possible.

A function is compiled once to a list of closures over numbered slots; a slot is emptied after its last use, so memory
follows what is live, as in eager torch. Symbolic dimensions are read off the inputs at every run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import tvm
from tvm import relax, tirx

from tvm_ahcq.errors import UnsupportedModelError

from . import ahcq_ops, relax_ops  # noqa: F401  (fill the registry)
from .registry import TORCH_OPS, Handler, torch_op

__all__ = ["TorchExecutor", "torch_op"]

_Reader = Callable[[list], Any]
"""Reads a value out of the slots. Slot 0 holds the symbolic dimensions of the run: variable -> int."""

_INTEGER_OPS: dict[type, Callable[[int, int], int]] = {
    tirx.Add: lambda a, b: a + b,
    tirx.Sub: lambda a, b: a - b,
    tirx.Mul: lambda a, b: a * b,
    tirx.FloorDiv: lambda a, b: a // b,
    tirx.FloorMod: lambda a, b: a % b,
    tirx.Max: max,
    tirx.Min: min,
}


@dataclass(frozen=True)
class Step:
    """One binding of a Relax function: how to compute it, and what it is."""

    compute: _Reader
    slot: int
    """Where its value goes."""
    dead: tuple[int, ...]
    """Slots that are empty afterwards."""
    op: str = ""
    """Operator that it calls, if it calls one."""
    attrs: SimpleNamespace = field(default_factory=SimpleNamespace)
    arguments: tuple[_Reader, ...] = ()

    def run(self, values: list) -> None:
        """Compute it on the slots of one run."""
        values[self.slot] = self.compute(values)
        for empty in self.dead:
            values[empty] = None


@dataclass(frozen=True)
class Program:
    """A compiled Relax function."""

    name: str
    inputs: tuple[relax.Var, ...]
    """Parameters of the Relax function that the caller passes; slots 1, 2, ..."""
    weights: tuple[tuple[int, str], ...]
    """(slot, name in ``TorchExecutor.params``) of the others."""
    steps: tuple[Step, ...]
    result: _Reader
    slots: int


class TorchExecutor:
    """Runs the Relax functions of an IRModule in torch.

    Parameters
    ----------
    module : tvm.IRModule
        Relax functions over high-level operators.
    params : mapping of str to array or tensor
        Values of the function parameters that are not inputs, by state-dict name: the Relax parameter is called the
        same with '.' replaced by '_'. Arrays are shared, not copied. The executor's ``params`` dict is looked up at
        every run, so an entry may be replaced, by a tensor that requires a gradient, say.
    hooks : mapping of str to handler, optional
        Handlers that replace the registered ones in this executor only, by operator name. To observe an operator, wrap
        its registered handler ``TORCH_OPS[name]``.

    Examples
    --------
    >>> executor = TorchExecutor(model.module, model.params)
    >>> embedding = executor.run("encode_image", image)
    """

    def __init__(
        self,
        module: tvm.IRModule,
        params: Mapping[str, np.ndarray | torch.Tensor],
        hooks: Mapping[str, Handler] | None = None,
    ):
        self.module = module
        with torch.inference_mode(False):
            self.params = {name: _tensor(value) for name, value in params.items()}
        self.hooks = dict(hooks or {})
        self._programs: dict[str, Program] = {}

    def run(self, function: str, *inputs: torch.Tensor | np.ndarray) -> Any:
        """Run one function.

        Parameters
        ----------
        function : str
            Name of a Relax function of the module.
        *inputs : torch.Tensor or np.ndarray
            Its inputs, without parameters. Never written to.

        Returns
        -------
        torch.Tensor or tuple of torch.Tensor

        Raises
        ------
        UnsupportedModelError
            For an operator without a torch implementation, an unknown function, or inputs that do not fit.
        """
        program = self.program(function)
        values = self.start(function, *inputs)
        for step in program.steps:
            step.run(values)
        return program.result(values)

    def program(self, function: str) -> Program:
        """The compiled form of one function; UnsupportedModelError as for :meth:`run`."""
        program = self._programs.get(function)
        if program is None:
            with torch.inference_mode(False):  # constants must stay usable when a later run wants gradients
                program = self._programs[function] = _Compiler(self, function).compile()
        return program

    def start(self, function: str, *inputs: torch.Tensor | np.ndarray) -> list:
        """Slots of a run of `function` before its first step: inputs and parameters are in place."""
        program = self.program(function)
        if len(inputs) != len(program.inputs):
            names = ", ".join(var.name for var in program.inputs)
            raise UnsupportedModelError(
                f"{function} takes {len(program.inputs)} inputs ({names}), {len(inputs)} were given"
            )
        symbols: dict = {}
        values: list = [symbols] + [None] * (program.slots - 1)
        for slot, (var, value) in enumerate(zip(program.inputs, inputs, strict=True), start=1):
            values[slot] = _tensor(value)
            _bind_shape(symbols, var.ty, values[slot].shape, f"{function}: input {var.name}")
        for slot, name in program.weights:
            values[slot] = self.params[name]
        return values

    def handler(self, op: str) -> Handler:
        """The handler that this executor uses for the operator `op`."""
        handler = self.hooks.get(op) or TORCH_OPS.get(op)
        if handler is None:
            raise UnsupportedModelError(
                f"operator {op} has no torch implementation; register one with @torch_op({op!r}) "
                "(tvm_ahcq.torch_exec.executor)"
            )
        return handler


class _Compiler:
    """Compiles one Relax function; lives only while it does."""

    def __init__(self, executor: TorchExecutor, name: str):
        known = [var.name_hint for var in executor.module.get_global_vars()]
        function = executor.module[name] if name in known else None
        if not isinstance(function, relax.Function):
            raise UnsupportedModelError(f"no Relax function {name!r}; the module has {', '.join(sorted(known))}")
        self.executor, self.name, self.function = executor, name, function
        self.slot_of: dict[relax.Var, int] = {}
        self.used: set[int] = set()

    def compile(self) -> Program:
        """Number the variables, build the steps, then find out where each slot dies."""
        parameters = list(self.function.params)
        names = {name.replace(".", "_"): name for name in self.executor.params}
        attrs = self.function.attrs or {}
        count = int(attrs["num_input"]) if "num_input" in attrs else sum(p.name not in names for p in parameters)
        missing = [var.name for var in parameters[count:] if var.name not in names]
        if missing:
            raise UnsupportedModelError(f"{self.name}: no value for the parameters {', '.join(missing[:5])}")
        for var in parameters:
            self._slot(var)
        weights = tuple((self.slot_of[var], names[var.name]) for var in parameters[count:])
        steps = []
        for block in self.function.body.blocks:
            for binding in block.bindings:
                self.used = set()
                step = self._binding(binding)
                steps.append((replace(step, slot=self._slot(binding.var)), self.used))
        self.used = set()
        result = self._reader(self.function.body.body)
        planned = _with_deaths(steps, self.used)
        return Program(self.name, tuple(parameters[:count]), weights, planned, result, len(self.slot_of) + 1)

    def _slot(self, var: relax.Var) -> int:
        return self.slot_of.setdefault(var, len(self.slot_of) + 1)

    def _binding(self, binding: relax.Binding) -> Step:
        if isinstance(binding, relax.MatchCast):
            read, ty, place = self._reader(binding.value), binding.ty, f"{self.name}: {binding.var.name}"

            def match(values: list) -> Any:
                value = read(values)
                _bind_shape(values[0], ty, value.shape, place)
                return value

            return Step(match, 0, ())
        value = binding.value
        return self._call(value) if isinstance(value, relax.Call) else Step(self._reader(value), 0, ())

    def _call(self, call: relax.Call) -> Step:
        if not isinstance(call.op, tvm.ir.Op):
            raise UnsupportedModelError(f"{self.name}: calls {call.op}; only calls of operators can be run in torch")
        handler, attrs = self.executor.handler(call.op.name), _plain_attrs(call.attrs)
        readers = tuple(self._reader(arg) for arg in call.args)
        return Step(
            lambda values: handler(attrs, [read(values) for read in readers]), 0, (), call.op.name, attrs, readers
        )

    def _reader(self, expr: Any) -> _Reader:
        """Return a function that reads `expr` at run time; note the slots it needs."""
        if isinstance(expr, relax.Var) and not tvm.ir.is_prim_var(expr):
            slot = self.slot_of[expr]
            self.used.add(slot)
            return lambda values: values[slot]
        if isinstance(expr, relax.Tuple):
            fields = [self._reader(field) for field in expr.fields]
            return lambda values: tuple(read(values) for read in fields)
        if isinstance(expr, relax.TupleGetItem):
            read, index = self._reader(expr.tuple_value), expr.index
            return lambda values: read(values)[index]
        if isinstance(expr, relax.ShapeExpr):
            dims = [_integer(dim) for dim in expr.values]
            return lambda values: tuple(dim(values[0]) if callable(dim) else dim for dim in dims)
        if isinstance(expr, tvm.ir.GenericConst):
            constant = torch.from_numpy(expr.value.numpy())
            return lambda values: constant
        if isinstance(expr, tirx.FloatImm):
            number = float(expr.value)
            return lambda values: number
        if tvm.ir.is_prim_expr(expr):
            size = _integer(expr)
            return lambda values: size(values[0]) if callable(size) else size
        raise UnsupportedModelError(f"{self.name}: {type(expr).__name__} expressions cannot be run in torch")


def _with_deaths(steps: Sequence[tuple[Step, set[int]]], kept: set[int]) -> tuple[Step, ...]:
    """Give each step the slots that no later step and not the result needs."""
    seen, planned = set(kept), []
    for step, used in reversed(steps):
        planned.append(replace(step, dead=tuple((used | {step.slot}) - seen)))
        seen |= used
    return tuple(reversed(planned))


def _integer(expr: Any) -> int | Callable[[dict], int]:
    """An integer expression over symbolic dimensions, as an int or as a function of their values."""
    if isinstance(expr, int | tirx.IntImm):
        return int(expr)
    if tvm.ir.is_prim_var(expr):
        return lambda symbols: symbols[expr]
    if isinstance(expr, tirx.Cast):
        return _integer(expr.value)
    combine = _INTEGER_OPS.get(type(expr))
    if combine is None:
        raise UnsupportedModelError(f"the shape expression {expr} cannot be evaluated")
    left, right = _integer(expr.a), _integer(expr.b)

    def evaluate(symbols: dict) -> int:
        return combine(*(side(symbols) if callable(side) else side for side in (left, right)))

    return evaluate


def _bind_shape(symbols: dict, ty: relax.Type, shape: Sequence[int], place: str) -> None:
    """Read symbolic dimensions off `shape`, and check the others against the declared type."""
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return
    declared = list(ty.shape.values)
    fits = len(declared) == len(shape)
    for dim, size in zip(declared, shape, strict=False):
        if tvm.ir.is_prim_var(dim):
            fits = fits and symbols.setdefault(dim, int(size)) == size
        elif isinstance(dim, tirx.IntImm):
            fits = fits and int(dim) == size
    if not fits:
        raise UnsupportedModelError(f"{place} has shape {tuple(shape)}; expected {declared}")


def _tensor(value: Any) -> torch.Tensor:
    """A tensor that shares memory with an array."""
    if isinstance(value, torch.Tensor):
        return value
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing here writes
        return torch.as_tensor(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value)


def _plain_attrs(attrs: Any) -> SimpleNamespace:
    """Attributes of a call as plain Python values; read once, because every read crosses the FFI."""
    if attrs is None:
        return SimpleNamespace()
    if isinstance(attrs, tvm.ir.DictAttrs):
        return SimpleNamespace(**{str(key): _plain(attrs[key]) for key in attrs.keys()})
    fields = type(attrs).__tvm_ffi_type_info__.fields
    return SimpleNamespace(**{field.name: _plain(getattr(attrs, field.name)) for field in fields})


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, tirx.IntImm):
        return int(value)
    if isinstance(value, tirx.FloatImm):
        return float(value.value)
    if isinstance(value, Sequence):
        return tuple(_plain(item) for item in value)
    return str(value)
