"""How many cycles a list of instructions keeps each unit busy, and what the whole will take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..hardware.config import Config
from ..hardware.schedule import Entry

LATENCY = 40
"""Cycles of memory latency that the estimate assumes."""


@dataclass(frozen=True)
class Work:
    """Busy cycles of each unit.

    Attributes
    ----------
    array, vector, load, store : int
        Cycles: rows fed into the array, elements through the lanes, chunks of 8 bytes.
    instructions : int
        Count.
    """

    array: int
    vector: int
    load: int
    store: int
    instructions: int

    @property
    def cycles(self) -> int:
        """Estimate of the program's length: its busiest unit, and a tenth of what the others cannot hide."""
        busy = sorted((self.array, self.vector, self.load, self.store))
        return busy[-1] + sum(busy[:-1]) // 10 + 4 * LATENCY

    @property
    def bytes(self) -> int:
        """Traffic with the accelerator's memory."""
        return 8 * (self.load + self.store)


def work_of(entries: Iterable[Entry], config: Config) -> Work:
    """Busy cycles of a list of instructions."""
    total = dict.fromkeys(("array", "vector", "load", "store"), 0)
    count = 0
    for name, fields in entries:
        count += 1
        if name in ("load", "store"):
            total[name] += fields["rows"] * fields["length"]
        elif name == "gemm":
            total["array"] += fields["rows"] * fields["steps"] * fields["blocks"]
        else:  # of the vector unit
            total["vector"] += -(-fields["rows"] * fields["blocks"] * config.dim // config.lanes)
    return Work(**total, instructions=count)
