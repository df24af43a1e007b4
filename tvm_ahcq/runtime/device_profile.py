"""Figures of offloaded operators in their last call: cycles, busy units, traffic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from .accelerator import ProgramCounters
from .offload import OffloadDecision, OffloadReport
from .session import Session


@dataclass(frozen=True)
class OperatorCycles:
    """Counters of an offloaded operator, or the sums of several.

    Attributes
    ----------
    name, kind : str
        As in the offload report.
    macs : int
        Multiply-adds of the model for the prompts of the call, without padding.
    estimate : int
        Cycles that the compiler estimated for as many.
    cycles, array, vector, load, store : int
        Cycles of all runs of its program, and those in which each unit was busy. The array is busy when a row is fed to
        it, of padding too.
    loaded, stored : int
        Bytes between the accelerator and its memory.
    transfer : int
        Bytes between the host and the accelerator's memory.
    """

    name: str
    kind: str
    macs: int
    estimate: int
    cycles: int
    array: int
    vector: int
    load: int
    store: int
    loaded: int
    stored: int
    transfer: int

    @property
    def busy(self) -> float:
        """Share of cycles in which the array is busy."""
        return self.array / max(self.cycles, 1)

    @property
    def intensity(self) -> float:
        """Multiply-adds for each byte of the busier direction of the accelerator's memory."""
        return self.macs / max(self.loaded, self.stored, 1)

    @property
    def rate(self) -> float:
        """Multiply-adds a cycle."""
        return self.macs / max(self.cycles, 1)


def device_profile(session: Session, function: str) -> list[OperatorCycles]:
    """Return the figures of the offloaded operators that were called, in order; empty without an accelerator."""
    accelerator, stored = session.accelerator, session.manifest.accelerator
    if accelerator is None or stored is None:
        return []
    called = {each.symbol: each for each in accelerator.counters() if each.calls}
    decisions = OffloadReport.from_dict(stored).offloaded(function)
    return [_of(decision, called[decision.symbol]) for decision in decisions if decision.symbol in called]


def _of(decision: OffloadDecision, called: ProgramCounters) -> OperatorCycles:
    counters = called.counters

    def of_call(figure: int) -> int:
        return figure * called.repeats // decision.repeats

    return OperatorCycles(
        name=decision.name,
        kind=decision.kind,
        macs=of_call(decision.macs),
        estimate=of_call(decision.cycles),
        cycles=counters["cycles"],
        array=counters["array_busy"],
        vector=counters["vector_busy"],
        load=counters["load_busy"],
        store=counters["store_busy"],
        loaded=8 * counters["load_chunks"],
        stored=8 * counters["store_chunks"],
        transfer=of_call(decision.bytes),
    )


def total(parts: Iterable[OperatorCycles], name: str, kind: str = "") -> OperatorCycles:
    """Return the sums of several operators under one name."""
    parts = list(parts)
    sums = {field.name: sum(getattr(part, field.name) for part in parts) for field in fields(OperatorCycles)[2:]}
    return OperatorCycles(name, kind, **sums)
