"""The coverage gate: every product, attention, convolution and pooling has a role in the model description.

A layer that nobody described would otherwise stay in floating point without a word. The gate looks at operators, not at
names: whatever multiplies or pools must be quantized, or be in floating point by a choice that is written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tvm import relax
from tvm.ir import IRModule, Op

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.models.description import FLOAT, PIXELS, ModelFamily
from tvm_ahcq.quantizers.core.recipe import Recipe

from .rewrite import Definitions, bindings, functions
from .shapes import text

PRODUCTS = ("relax.ahcq.linear", "relax.matmul", "relax.einsum", "relax.outer")
"""Matrix products; those with a parameter are layers."""

CONVOLUTIONS = (
    "relax.ahcq.conv2d",
    *(f"relax.nn.conv{n}d{kind}" for n in (1, 2, 3) for kind in ("", "_transpose")),
)
"""Convolutions, whatever their strides, groups and padding."""

ATTENTIONS = (
    "relax.ahcq.attention",
    "relax.nn.attention",
    "relax.nn.attention_bias",
    "relax.nn.attention_var_len",
    "relax.nn.softmax",
)
"""Attentions. A softmax that is still there is one in a form that canonicalise does not know."""

POOLINGS = (
    *(f"relax.nn.{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg")),
    "relax.vision.roi_pool",
)
"""Poolings."""

OPAQUE = ("relax.call_tir", "relax.call_dps_packed", "relax.call_pure_packed")
"""Calls of functions that no pass looks into."""

_GATED = frozenset((*PRODUCTS, *CONVOLUTIONS, *ATTENTIONS, *POOLINGS, *OPAQUE))


class Status(Enum):
    """State of an operator after annotation."""

    QUANTIZED = "quantized"
    FLOAT = "float"
    """In floating point, as its role or the recipe says."""
    MISSING = "missing"
    """In floating point, and nobody chose that."""


@dataclass(frozen=True)
class CoverageEntry:
    """An operator that needs a role.

    Attributes
    ----------
    function : str
        Relax function that it is in.
    name : str
        Name that its role is looked up by: of the module of its parameter, of the attention's module, else
        ``<function>.<operator>``.
    operator : str
        Relax operator, such as ``"nn.conv2d"``.
    shape : str
        Shape of its result, such as ``"[B, 4, 16]"``.
    role : str or None
        Its role; None if the description has none for its name.
    status : Status
        Quantized, in float by choice, or missing.
    """

    function: str
    name: str
    operator: str
    shape: str
    role: str | None
    status: Status


@dataclass(frozen=True)
class Coverage:
    """All operators of a module that need a role.

    Attributes
    ----------
    entries : tuple of CoverageEntry
        In the order of the functions' names, then in graph order.
    """

    entries: tuple[CoverageEntry, ...]

    @property
    def quantized(self) -> tuple[CoverageEntry, ...]:
        """Operators whose operands are quantization sites."""
        return self._with(Status.QUANTIZED)

    @property
    def float_layers(self) -> tuple[CoverageEntry, ...]:
        """Operators that stay in floating point by choice of the description or the recipe."""
        return self._with(Status.FLOAT)

    @property
    def missing(self) -> tuple[CoverageEntry, ...]:
        """Operators without a role, and those whose form cannot be quantized as their role says."""
        return self._with(Status.MISSING)

    def _with(self, status: Status) -> tuple[CoverageEntry, ...]:
        return tuple(entry for entry in self.entries if entry.status is status)


def coverage(mod: IRModule, recipe: Recipe, family: ModelFamily) -> Coverage:
    """Compare the operators of an annotated module with the roles of the description.

    Parameters
    ----------
    mod : tvm.IRModule
        Canonical and annotated.
    recipe : Recipe
        May leave kinds of layers in floating point.
    family : ModelFamily
        Roles of the layers.

    Returns
    -------
    Coverage
    """
    entries: list[CoverageEntry] = []
    for var, func in functions(mod):
        entries += _entries(var.name_hint, func, recipe, family)
    return Coverage(tuple(entries))


def require_coverage(mod: IRModule, recipe: Recipe, family: ModelFamily) -> None:
    """Refuse an annotated module with operators that are in floating point though nobody chose that.

    Raises
    ------
    UnsupportedModelError
        If there are any; the message lists them all.
    """
    missing = coverage(mod, recipe, family).missing
    if missing:
        raise UnsupportedModelError(
            f"{len(missing)} of the model's operators have no valid role in the description of {family.title}:\n"
            + "".join(f"  {_complaint(entry)}\n" for entry in missing)
            + "Add a role for each name to the roles of the family: a kind of site to quantize it, or 'float' with a "
            "reason if it stays in floating point."
        )


def _complaint(entry: CoverageEntry) -> str:
    problem = "no role" if entry.role is None else f"role {entry.role!r}, but no integer operator takes this form"
    return f"{entry.name}: {entry.operator} of shape {entry.shape} in {entry.function}, {problem}"


def _entries(function: str, func: relax.Function, recipe: Recipe, family: ModelFamily) -> list[CoverageEntry]:
    defs = Definitions(func)
    names = _Names(function, defs)
    entries = []
    for binding in bindings(func):
        call = binding.value
        if isinstance(call, relax.Call) and isinstance(call.op, Op) and call.op.name in _GATED:
            name = names.of(call)
            role = family.role(name)
            kind = None if role is None else role.role
            status = _status(defs, call, kind, recipe)
            operator = call.op.name.removeprefix("relax.")
            entries.append(CoverageEntry(function, name, operator, text(binding.var), kind, status))
    return entries


def _status(defs: Definitions, call: relax.Call, role: str | None, recipe: Recipe) -> Status:
    if _is_quantized(defs, call):
        return Status.QUANTIZED
    chosen = role == FLOAT or (role == PIXELS and recipe.pixels is None)
    return Status.FLOAT if chosen else Status.MISSING


def _is_quantized(defs: Definitions, call: relax.Call) -> bool:
    """Return True if all computed operands of a layer or attention are quantization sites."""
    if is_op(call, "relax.ahcq.attention"):
        operands = call.args[:3] if int(call.attrs["bits"]) else []
    else:
        operands = call.args[:1] if is_op(call, "relax.ahcq.linear") or is_op(call, "relax.ahcq.conv2d") else []
    sites = [defs.call(operand, "relax.ahcq.quantize") for operand in operands]
    return bool(sites) and None not in sites


class _Names:
    """Names of operators, as the patterns of roles see them.

    Parameters
    ----------
    function : str
        Name of the function.
    defs : Definitions
        Of its variables.
    """

    def __init__(self, function: str, defs: Definitions) -> None:
        self._function, self._defs = function, defs
        self._weights = _weights(defs)

    def of(self, call: relax.Call) -> str:
        """Return the name of an operator."""
        if call.op.name in ATTENTIONS:
            name = str(call.attrs["name"]) if is_op(call, "relax.ahcq.attention") else self._attention(call)
        elif call.op.name in (*PRODUCTS, *CONVOLUTIONS):
            name = self._layer(call)
        else:
            name = ""
        return name or f"{self._function}.{call.op.name.rpartition('.')[2]}"

    def _layer(self, call: relax.Call) -> str:
        """Return the name of the module whose parameter a product or convolution has; "" if it has none."""
        if is_op(call, "relax.ahcq.linear") or is_op(call, "relax.ahcq.conv2d"):
            return str(call.attrs["name"])
        for operand in relax.analysis.free_vars(call):
            if name := self._weights.get(operand):
                return name.rpartition(".")[0] or name
        return ""

    def _attention(self, call: relax.Call) -> str:
        """Return the name of the module of the layer that the query comes from, less its last part; "" if none is."""
        stack, seen = [call.args[0]], set()
        while stack:
            value = self._defs.of(stack.pop())
            if value in seen:
                continue
            seen.add(value)
            if isinstance(value, relax.Call) and isinstance(value.op, Op):
                layer = self._layer(value) if value.op.name in PRODUCTS else ""
                if layer:
                    return layer.rpartition(".")[0]
                stack += reversed(value.args)
            elif isinstance(value, relax.TupleGetItem):
                stack.append(value.tuple_value)
            elif isinstance(value, relax.Tuple):
                stack += reversed(value.fields)
        return ""


def _weights(defs: Definitions) -> dict[relax.Var, str]:
    """Parameter behind each variable that depends on parameters and constants alone: its name, "" if it is constant."""
    weights = dict(defs.param_names)
    for binding in bindings(defs.func):
        read = relax.analysis.free_vars(binding.value)
        if all(var in weights for var in read):
            weights[binding.var] = next((weights[var] for var in read if weights[var]), "")
    return weights
