"""Estimate of a program's cycles, instruction by instruction, and its totals.

The estimate lets every instruction begin when it is dispatched, when its unit is free and when its tokens are there,
and gives it a length from its sizes. Constants are those of the RTL (``runtime/fsim/fsim_timing_compute.h``,
``runtime/fsim/fsim_timing_dma.cc``), which the functional simulator steps cycle by cycle; what units take from each
other within an instruction (ports of ``vec``, the bus) is in the constants that are marked as fitted to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import Tokens
from tvm_ahcq.codegen.isa.generated.isa import (
    LIMITS,
    UNITS,
    Gemm,
    Instruction,
    Load,
    Logit,
    Prob,
    Scale,
    Store,
)

LATENCY = 40
"""Cycles of memory latency that the estimate assumes."""

_CHECK, _CHECK_RANGE = 9, 1
"""Cycles between two dispatches, and for each operand whose range is checked."""

_DRAIN = 23
"""Cycles of the vector unit behind the last slot of an instruction."""

_START = 1
"""Cycles from the decision that an instruction starts."""

_BURST = 16
"""Beats of a burst; each asks for two cycles."""

_READ, _BURSTS = 3, 0.03
"""Least cycles between two reads of STORE, of which one gives a word of ``out`` or a part of one of ``vec``; and for
each beat, those between bursts (fitted)."""

_SHARED = 1.0
"""Cycles for which such a read waits where scales read the sums that they add to at the same time (fitted)."""


@dataclass(frozen=True)
class CycleEstimate:
    """Totals of a program, and the estimate of its length.

    Attributes
    ----------
    array : int
        Rows fed into the array: cycles in which it is busy.
    load, store : int
        Chunks of 8 bytes.
    instructions : int
        Number of instructions, without FINISH.
    cycles : int
        Estimated length.
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


def estimate_cycles(instructions: Sequence[Instruction], tokens: Sequence[Tokens], config: Config) -> CycleEstimate:
    """Return the estimate of a list of instructions with its tokens."""
    load = sum(each.rows * each.length for each in instructions if isinstance(each, Load))
    store = sum(each.rows * each.length for each in instructions if isinstance(each, Store))
    array = sum(each.rows * each.steps * each.blocks for each in instructions if isinstance(each, Gemm))
    adds_to_sums = any(isinstance(each, Scale) and each.add_mode == 2 for each in instructions)
    cycles = _Replay(config, adds_to_sums).cycles(instructions, tokens)
    return CycleEstimate(array, load, store, len(instructions), cycles)


class _Replay:
    """Times at which units become free, and at which tokens were given.

    `adds_to_sums`: True if scales read the sums that they add to, through the port of ``vec`` that STORE reads.
    """

    def __init__(self, config: Config, adds_to_sums: bool) -> None:
        self.config = config
        parts = {"vec": config.lanes // 2, "out": max(1, config.dim // 16)}
        self.cycles_per_beat = {
            memory: _cycles_per_beat(count // config.bus_chunks, adds_to_sums and memory == "vec")
            for memory, count in parts.items()
        }
        self.steps_per_row = config.dim // config.lanes
        self.free = dict.fromkeys(UNITS, 0.0)
        self.fed = 0.0  # when the array has taken all rows so far
        self.feeds: list[deque[tuple[float, float]]] = [deque(maxlen=8) for _ in range(2)]
        self.given: list[list[deque[float]]] = [[deque() for _ in UNITS] for _ in UNITS]

    def cycles(self, instructions: Sequence[Instruction], tokens: Sequence[Tokens]) -> int:
        """Return the length of the program."""
        now, end = float(LATENCY), 0.0
        queues = {unit: deque([0.0] * LIMITS["queue_depth"], LIMITS["queue_depth"]) for unit in UNITS}
        for instruction, (pop, push) in zip(instructions, tokens, strict=True):
            unit = instruction.unit
            taker = UNITS.index(unit)
            # a queue has room again when the instruction four places in front has begun
            now = max(now + _CHECK + _CHECK_RANGE * len(instruction.ranges), queues[unit][0])
            start = max([now, self.free[unit], *(self.given[giver][taker].popleft() for giver in pop)]) + _START
            queues[unit].append(start)
            if isinstance(instruction, Gemm):
                done = self._multiply(start, instruction)
            else:
                done = self.free[unit] = self._done(start, instruction)
            for other in push:
                self.given[taker][other].append(done)
            end = max(end, done)
        return round(end + LATENCY)

    def _multiply(self, start: float, gemm: Gemm) -> float:
        """A GEMM: weights of a tile arrive while the rows of the one before are fed."""
        dim = self.config.dim
        tile = max(gemm.rows, dim + 1)
        begin = max(start + dim + 3, self.fed)
        self.fed = begin + tile * gemm.steps * gemm.blocks
        self.free["gemm"] = max(start + dim, self.fed - tile)
        self.feeds[self._half(gemm.acc)].append((begin + dim + 3, self.fed + 2 * dim + 3))
        return self.fed + 2 * dim + 7

    def _done(self, start: float, instruction: Instruction) -> float:
        done = start + self._length(instruction)
        if isinstance(instruction, (Scale, Logit)):
            done += self._accumulator_stall(start, done, instruction.acc)
        return done

    def _half(self, acc: int) -> int:
        return acc // (self.config.acc_depth // 2)

    def _accumulator_stall(self, start: float, done: float, acc: int) -> float:
        """Time in which the array writes the half of the accumulators that the vector unit would read."""
        lost = 0.0
        for first, end in self.feeds[self._half(acc)]:
            lost += max(0.0, min(end, done + lost) - max(first, start))
        return lost

    def _length(self, instruction: Instruction) -> float:
        if isinstance(instruction, (Load, Store)):
            beats = -(-instruction.length // self.config.bus_chunks)
            if isinstance(instruction, Load):
                return LATENCY + 8 + instruction.rows * max(beats, 2 * -(-beats // _BURST))
            return LATENCY + 8 + instruction.rows * beats * self.cycles_per_beat[instruction.memory]
        assert isinstance(instruction, (Scale, Logit, Prob)), "the vector unit has no other instruction"
        rows, steps = instruction.rows, instruction.blocks * self.steps_per_row
        if isinstance(instruction, Scale):
            bias = int(instruction.add_mode == 1)
            return steps * (rows + 1 + bias) + _DRAIN
        if isinstance(instruction, Logit):
            return rows * (steps + instruction.rel) + _DRAIN
        return rows * steps + _DRAIN


def _cycles_per_beat(reads: int, adds_to_sums: bool) -> float:
    """Cycles of a beat that STORE sends, of which each read gives so many."""
    return (max(_READ, reads) + _SHARED * adds_to_sums) / reads + _BURSTS
