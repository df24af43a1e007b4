"""What a program does in all, and how many cycles it takes, estimated instruction by instruction.

The estimate lets every instruction begin when it is dispatched, when its unit is free and when its tokens are there,
and gives it a length from its sizes. Constants are those of the RTL (``runtime/fsim_timing_compute.h``,
``runtime/fsim_timing_dma.cc``), which the functional simulator steps cycle by cycle; what units take from each other
within an instruction (ports of ``vec``, the bus) is in the constants that are marked as fitted to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import Entry, Tokens
from tvm_ahcq.codegen.isa.generated.isa import INSTRUCTIONS, LIMITS, UNITS

LATENCY = 40
"""Cycles of memory latency that the estimate assumes."""

_CHECK, _CHECK_RANGE = 9, 1
"""Cycles between two dispatches, and for each operand whose range is checked."""

_DRAIN = 24
"""Stages of the vector unit behind those that depend on the number of lanes."""

_START = 1
"""Cycles from the decision that an instruction starts."""

_LOGARITHM = 24
"""Cycles for the logarithm of a row sum; one at a time."""

_BURST = 16
"""Beats of a burst; each asks for two cycles."""

_READ, _BURSTS = 3, 0.03
"""Least cycles between two reads of STORE, of which one gives a word of ``out`` or a part of one of ``vec``; and for
each beat, those between bursts (fitted)."""

_SHARED = 1.0
"""Cycles for which such a read waits where scales read the sums that they add to at the same time (fitted)."""


@dataclass(frozen=True)
class CycleEstimate:
    """What a program does.

    Attributes
    ----------
    array : int
        Rows fed into the array: cycles in which it is busy.
    load, store : int
        Chunks of 8 bytes.
    instructions : int
        Count.
    cycles : int
        Estimate of its length.
    """

    array: int
    load: int
    store: int
    instructions: int
    cycles: int

    @property
    def bytes(self) -> int:
        """Traffic with the accelerator's memory."""
        return 8 * (self.load + self.store)


def estimate_cycles(entries: Sequence[Entry], tokens: Sequence[Tokens], config: Config) -> CycleEstimate:
    """What a list of instructions does, with its tokens."""
    moved = {name: sum(f["rows"] * f["length"] for _, f in _of(entries, name)) for name in ("load", "store")}
    array = sum(f["rows"] * f["steps"] * f["blocks"] for _, f in _of(entries, "gemm"))
    shared = any(f.get("add_mode", 0) == 2 for _, f in _of(entries, "scale"))
    cycles = _Replay(config, shared).cycles(entries, tokens)
    return CycleEstimate(array, moved["load"], moved["store"], len(entries), cycles)


def _of(entries: Iterable[Entry], name: str) -> Iterable[Entry]:
    return (entry for entry in entries if entry[0] == name)


class _Replay:
    """Times at which units become free, and at which tokens were given; `shared`: whether scales add to sums."""

    def __init__(self, config: Config, shared: bool) -> None:
        self.config = config
        parts = {"vec": config.lanes // 2, "out": max(1, config.dim // 16)}
        self.sent = {
            name: self._sent(count // config.bus_chunks, shared and name == "vec") for name, count in parts.items()
        }
        self.subs = config.dim // config.lanes
        self.drain = _DRAIN + (config.lanes - 1).bit_length()
        self.free = dict.fromkeys(UNITS, 0.0)
        self.fed = 0.0  # when the array has taken all rows so far
        self.feeds: list[deque[tuple[float, float]]] = [deque(maxlen=8) for _ in range(2)]
        self.given: list[list[deque[float]]] = [[deque() for _ in UNITS] for _ in UNITS]

    def cycles(self, entries: Sequence[Entry], tokens: Sequence[Tokens]) -> int:
        """Length of the program."""
        now, end = float(LATENCY), 0.0
        queues = {unit: deque([0.0] * LIMITS["queue_depth"], LIMITS["queue_depth"]) for unit in UNITS}
        for (name, fields), (pop, push) in zip(entries, tokens, strict=True):
            definition = INSTRUCTIONS[name]
            unit = str(definition["unit"])
            taker = UNITS.index(unit)
            # a queue has room again when the instruction four places in front has begun
            now = max(now + _CHECK + _CHECK_RANGE * len(definition["range"]), queues[unit][0])
            start = max([now, self.free[unit], *(self.given[giver][taker].popleft() for giver in pop)]) + _START
            queues[unit].append(start)
            done = self._multiply(start, fields) if name == "gemm" else start + self._length(name, fields)
            if name in ("scale", "logit"):
                done += self._accumulator_stall(start, done, fields["acc"])
            if name != "gemm":
                self.free[unit] = done
            for other in push:
                self.given[taker][other].append(done)
            end = max(end, done)
        return round(end + LATENCY)

    def _multiply(self, start: float, f: dict[str, Any]) -> float:
        """A GEMM: weights of a tile arrive while the rows of the one before are fed."""
        dim = self.config.dim
        tile = max(f["rows"], dim + 1)
        begin = max(start + dim + 3, self.fed)
        self.fed = begin + tile * f["steps"] * f["blocks"]
        self.free["gemm"] = max(start + dim, self.fed - tile)
        self.feeds[self._half(f["acc"])].append((begin + dim + 3, self.fed + 2 * dim + 3))
        return self.fed + 2 * dim + 7

    @staticmethod
    def _sent(parts: int, shared: bool) -> float:
        """Cycles of a beat that STORE sends, where each read gives so many."""
        return (max(_READ, parts) + _SHARED * shared) / parts + _BURSTS

    def _half(self, acc: int) -> int:
        return acc // (self.config.acc_depth // 2)

    def _accumulator_stall(self, start: float, done: float, acc: int) -> float:
        """Time in which the array writes the half of the accumulators that the vector unit would read."""
        lost = 0.0
        for first, end in self.feeds[self._half(acc)]:
            lost += max(0.0, min(end, done + lost) - max(first, start))
        return lost

    def _length(self, name: str, f: dict[str, Any]) -> float:
        if name in ("load", "store"):
            beats = -(-f["length"] // self.config.bus_chunks)
            if name == "load":
                return LATENCY + 8 + f["rows"] * max(beats, 2 * -(-beats // _BURST))
            return LATENCY + 8 + f["rows"] * beats * self.sent[f["memory"]]
        if name == "scale":
            bias = int(f.get("add_mode", 0) == 1)
            return f["blocks"] * self.subs * (f["rows"] + 1 + bias) + self.drain
        row = f["blocks"] * self.subs + (1 if f.get("rel", 0) else 0)
        if name == "expsum":
            return f["rows"] * max(row, _LOGARITHM) + self.drain + _LOGARITHM
        return f["rows"] * row + self.drain
