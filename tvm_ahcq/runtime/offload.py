"""The offload report: which operators run on the accelerator, and why the others do not. Kept in the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tvm_ahcq.errors import BundleError

from .operator_shapes import Shape, shape_from_dict

HOST, ACCELERATOR = "host", "accelerator"
"""Where an operator runs."""

_DECISIONS_KEY = "places"
_JSON_KEYS = {"batched": "per_prompt", "repeats": "times"}
"""Names in a bundle's manifest of what has another name here."""


@dataclass(frozen=True)
class OffloadDecision:
    """One operator, or several of one kind that stay on the host for one reason.

    Attributes
    ----------
    function : str
        Function of the bundle that it belongs to.
    name : str
        Its stable name; that of its kind for operators without one.
    kind : str
        ``"linear"``, ``"mlp"``, ``"attention"``, or the Relax operator.
    where : str
        :data:`HOST` or :data:`ACCELERATOR`.
    count : int
        Operators that the entry stands for.
    macs : int
        Multiply-adds in one call of the function, with one prompt: a click, or a box.
    bytes : int
        Moved between host and accelerator in such a call.
    cycles : int
        Estimate of the accelerator's cycles in such a call.
    reason : str
        Why it is on the host; "" on the accelerator.
    symbol : str
        Its name in the library; "" on the host.
    shapes : tuple of Shape
        Tuning keys of its parts; empty on the host.
    tuned : bool
        True if tuning chose how its program is tiled.
    batched : bool
        True if its work grows with the number of prompts in a call.
    repeats : int
        On the accelerator: repeat count of the program's rows in a call with one prompt: 1, or its number of
        tokens where the program takes any number of rows.
    """

    function: str
    name: str
    kind: str
    where: str
    count: int = 1
    macs: int = 0
    bytes: int = 0
    cycles: int = 0
    reason: str = ""
    symbol: str = ""
    shapes: tuple[Shape, ...] = ()
    tuned: bool = False
    batched: bool = False
    repeats: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OffloadDecision:
        """Return the inverse of :meth:`to_dict`.

        Raises
        ------
        TypeError, AttributeError
            A field is missing, unknown or of a wrong type.
        """
        names = {key: name for name, key in _JSON_KEYS.items()}
        fields = {names.get(key, key): value for key, value in stored.items()}
        return cls(**fields | {"shapes": tuple(map(shape_from_dict, fields.get("shapes", ())))})


@dataclass(frozen=True)
class OffloadReport:
    """Every operator of the offloaded functions, in the order of execution.

    Attributes
    ----------
    config : str
        Name of the accelerator's configuration.
    config_hash : int
        Hash that a device of that configuration answers with.
    decisions : tuple of OffloadDecision
        All operators.
    """

    config: str
    config_hash: int
    decisions: tuple[OffloadDecision, ...]

    def offloaded(self, function: str | None = None) -> list[OffloadDecision]:
        """Return the operators on the accelerator, of one function or of all."""
        return [decision for decision in self.of(function) if decision.where == ACCELERATOR]

    def of(self, function: str | None = None) -> list[OffloadDecision]:
        """Return all operators of one function, or of all functions."""
        return [decision for decision in self.decisions if function in (None, decision.function)]

    def share(self, function: str) -> float:
        """Return the accelerator's share of a function's multiply-adds, with one prompt."""
        total = sum(decision.macs for decision in self.of(function))
        return sum(decision.macs for decision in self.offloaded(function)) / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that a bundle's manifest holds."""
        decisions = [decision.to_dict() for decision in self.decisions]
        return {"config": self.config, "config_hash": self.config_hash, _DECISIONS_KEY: decisions}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OffloadReport:
        """Return the inverse of :meth:`to_dict`.

        Raises
        ------
        BundleError
            A field is missing or of a wrong type.
        """
        try:
            decisions = tuple(map(OffloadDecision.from_dict, stored[_DECISIONS_KEY]))
            return cls(str(stored["config"]), int(stored["config_hash"]), decisions)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"the offload report lacks a field or has one of a wrong type: {error!r}") from error


HEADER = ("operator", "kind", "where", "each", "MMAC", "kB moved", "kcycles", "why on the host")
"""Columns of :func:`rows`."""


def summary(report: OffloadReport, function: str | None = None) -> str:
    """Return one line: the part of a function, by default of that with most multiply-adds, on the accelerator."""
    if function is None:
        names = dict.fromkeys(decision.function for decision in report.decisions)
        function = max(names, key=lambda name: sum(each.macs for each in report.of(name)), default="")
    offloaded = report.offloaded(function)
    cycles = sum(decision.cycles for decision in offloaded)
    share = f"{report.share(function):.1%} of its multiply-adds"
    share += " for one prompt" if any(decision.batched for decision in report.of(function)) else ""
    return f"{len(offloaded)} operators of {function} on {report.config}: {share}, about {cycles / 1e6:.2f} M cycles"


def condensed(decisions: Sequence[OffloadDecision]) -> list[OffloadDecision]:
    """Merge operators of one kind that stay on the host for one reason."""
    merged: dict[tuple[str, ...], OffloadDecision] = {}
    for decision in decisions:
        name = decision.name if decision.where == ACCELERATOR else ""
        key = (decision.function, decision.kind, decision.reason, name, str(decision.batched))
        if key not in merged:
            merged[key] = decision
            continue
        before = merged[key]
        count, macs = before.count + decision.count, before.macs + decision.macs
        merged[key] = replace(before, name=decision.kind, count=count, macs=macs)
    return list(merged.values())


def rows(decisions: Sequence[OffloadDecision]) -> list[tuple[str, ...]]:
    """Return the cells of a table under :data:`HEADER`; "each" is the unit of the figures, a call or a prompt."""
    return [
        (
            decision.name if decision.count == 1 else f"{decision.name} x{decision.count}",
            decision.kind,
            decision.where,
            "prompt" if decision.batched else "call" if decision.macs else "",
            f"{decision.macs / 1e6:.2f}" if decision.macs else "",
            f"{decision.bytes / 1e3:.1f}" if decision.bytes else "",
            f"{decision.cycles / 1e3:.1f}" if decision.cycles else "",
            decision.reason,
        )
        for decision in decisions
    ]
