"""What a compiler put on the accelerator, what it left on the host, and why: kept in the bundle, shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tvm_ahcq.errors import BundleError

HOST, ACCELERATOR = "host", "accelerator"
"""Where an operator runs."""


@dataclass(frozen=True)
class OperatorPlace:
    """One operator, or several of one kind that stay on the host for one reason.

    Attributes
    ----------
    function : str
        Which function of the bundle it is in.
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
    shapes : tuple of mapping
        What tuning knows it by, each of its parts: fields of :mod:`tvm_ahcq.codegen.lower.tiles`; empty on the host.
    tuned : bool
        Whether tuning chose how its program is tiled.
    per_prompt : bool
        Whether its work grows with the number of prompts in a call.
    times : int
        On the accelerator: how often a call with one prompt has the rows that its program knows of: 1, or the number of
        its tokens, where the program takes any number of rows.
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
    shapes: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)
    tuned: bool = False
    per_prompt: bool = False
    times: int = 1


@dataclass(frozen=True)
class OffloadReport:
    """Every operator of the offloaded functions, in the order of execution.

    Attributes
    ----------
    config : str
        Name of the accelerator's configuration.
    config_hash : int
        What a device of that configuration answers.
    places : tuple of OperatorPlace
        All operators.
    """

    config: str
    config_hash: int
    places: tuple[OperatorPlace, ...]

    def offloaded(self, function: str | None = None) -> list[OperatorPlace]:
        """What runs on the accelerator."""
        return [place for place in self.of(function) if place.where == ACCELERATOR]

    def of(self, function: str | None = None) -> list[OperatorPlace]:
        """Everything in one function, or in all."""
        return [place for place in self.places if function in (None, place.function)]

    def share(self, function: str) -> float:
        """Part of a function's multiply-adds, with one prompt, that the accelerator does."""
        total = sum(place.macs for place in self.of(function))
        return sum(place.macs for place in self.offloaded(function)) / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OffloadReport:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        BundleError
            A field is missing or of a wrong type.
        """
        try:
            places = tuple(OperatorPlace(**place) for place in stored["places"])
            return cls(str(stored["config"]), int(stored["config_hash"]), places)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the offload report lacks a field or has one of a wrong type: {error!r}") from error


HEADER = ("operator", "kind", "where", "each", "MMAC", "kB moved", "kcycles", "why on the host")
"""Columns of :func:`rows`."""


def summary(report: OffloadReport, function: str = "encode_image") -> str:
    """One line: how much of a function runs on the accelerator."""
    places = report.offloaded(function)
    cycles = sum(place.cycles for place in places)
    share = f"{report.share(function):.1%} of its multiply-adds"
    share += " for one prompt" if any(place.per_prompt for place in report.of(function)) else ""
    return f"{len(places)} operators of {function} on {report.config}: {share}, about {cycles / 1e6:.2f} M cycles"


def condensed(places: Sequence[OperatorPlace]) -> list[OperatorPlace]:
    """The same with operators that stay on the host for one reason taken together, by kind."""
    merged: dict[tuple[str, ...], OperatorPlace] = {}
    for place in places:
        own = place.where == ACCELERATOR
        key = (place.function, place.kind, place.reason, place.name if own else "", str(place.per_prompt))
        if key not in merged:
            merged[key] = place
            continue
        before = merged[key]
        count, macs = before.count + place.count, before.macs + place.macs
        merged[key] = replace(before, name=place.kind, count=count, macs=macs)
    return list(merged.values())


def rows(places: Sequence[OperatorPlace]) -> list[tuple[str, ...]]:
    """Cells of a table under :data:`HEADER`; "each" is what the figures are for, a call or each prompt in it."""
    return [
        (
            place.name if place.count == 1 else f"{place.name} x{place.count}",
            place.kind,
            place.where,
            "prompt" if place.per_prompt else "call" if place.macs else "",
            f"{place.macs / 1e6:.2f}" if place.macs else "",
            f"{place.bytes / 1e3:.1f}" if place.bytes else "",
            f"{place.cycles / 1e3:.1f}" if place.cycles else "",
            place.reason,
        )
        for place in places
    ]
