"""Execution of a program: queues, tokens, errors, counters (SPEC 2 and 6)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, Decoded, decode
from tvm_ahcq.codegen.isa.generated.isa import (
    EXACT_COUNTERS,
    LIMITS,
    UNITS,
    Finish,
    Gemm,
    Instruction,
    Load,
    Store,
)

from .check import check
from .operations import OPERATIONS
from .state import State

_TOKENS_MAX = (1 << LIMITS["token_bits"]) - 1


@dataclass
class Result:
    """Result of a program.

    Attributes
    ----------
    error : str
        Name of the error code, ``"none"`` if the program reached FINISH.
    error_index : int
        Instruction it belongs to (of a deadlock: instructions dispatched until then).
    counters : dict
        The counters that every implementation must agree on.
    """

    error: str
    error_index: int
    counters: dict[str, int]


class _BusError(Exception):
    """Memory answered with an error; the argument is the name of the code."""


@dataclass
class _Unit:
    """One of the four units: its waiting instructions, and the tokens that a finished one still has to give."""

    name: str
    queue: deque[Decoded] = field(default_factory=deque)
    busy: bool = False
    unsent: int = 0


class Machine:
    """An accelerator and its external memory.

    Parameters
    ----------
    config : Config
        Sizes.
    memory : bytearray
        External memory; programs change it in place.
    faults : (int, int), optional
        Bytes of it that answer with a bus error. What a program that meets one leaves in memory is undefined.
    """

    def __init__(self, config: Config, memory: bytearray, faults: tuple[int, int] | None = None) -> None:
        self.config, self.memory, self.faults = config, memory, faults
        self.state = State(config)

    def run(self, program: int, length: int, window: tuple[int, int] | None = None) -> Result:
        """Run `length` instructions from byte address `program`; `window` is all of memory if not given."""
        try:
            return self._run(program, length, window or (0, len(self.memory)))
        except _BusError as error:
            return Result(str(error), 0, self._counters)

    def _run(self, program: int, length: int, window: tuple[int, int]) -> Result:
        self._units = [_Unit(name) for name in UNITS]
        self._tokens = [[0] * len(UNITS) for _ in UNITS]  # [giver][taker]
        self._counters = dict.fromkeys(EXACT_COUNTERS, 0)
        for index in range(length):
            start = program + index * INSTRUCTION_BYTES
            data = bytes(self.memory[start : start + INSTRUCTION_BYTES])
            decoded = decode(data)
            error = check(decoded, self.config, window)
            if error != "none" or decoded is None or isinstance(decoded.instruction, Finish):
                return self._end(error, index)
            unit = self._units[UNITS.index(decoded.instruction.unit)]
            while len(unit.queue) == LIMITS["queue_depth"]:
                if not self._step():
                    return Result("deadlock", index, self._counters)
            unit.queue.append(decoded)
        return self._end("program_end", length)

    def _end(self, error: str, index: int) -> Result:
        while self._step():
            pass
        if any(unit.queue or unit.busy for unit in self._units):
            error = "deadlock"
        return Result(error, index, self._counters)

    def _step(self) -> bool:
        """Let every unit complete at most one instruction; False if none can."""
        return any([self._advance(number, unit) for number, unit in enumerate(self._units)])

    def _advance(self, number: int, unit: _Unit) -> bool:
        if unit.busy:
            return self._give(number, unit)
        if not unit.queue:
            return False
        instruction, pop, push, _ = unit.queue[0]
        givers = [giver for giver in range(len(UNITS)) if pop >> giver & 1]
        if not all(self._tokens[giver][number] for giver in givers):
            return False
        for giver in givers:
            self._tokens[giver][number] -= 1
        unit.queue.popleft()
        self._refuse_faults(instruction)
        OPERATIONS[type(instruction)](self.state, self.memory, instruction)
        self._count(instruction)
        unit.busy, unit.unsent = True, push
        self._give(number, unit)
        return True

    def _refuse_faults(self, instruction: Instruction) -> None:
        """Raise where a DMA instruction touches memory that answers with a bus error."""
        if isinstance(instruction, (Load, Store)) and self.faults is not None:
            first, end = self.faults
            for row in range(instruction.rows):
                start = instruction.address + row * instruction.stride
                if start < end and start + 8 * instruction.length > first:
                    raise _BusError("bus_read" if isinstance(instruction, Load) else "bus_write")

    def _give(self, number: int, unit: _Unit) -> bool:
        """Give the tokens of a finished instruction, all at once, when no counter is full."""
        takers = [taker for taker in range(len(UNITS)) if unit.unsent >> taker & 1]
        if any(self._tokens[number][taker] == _TOKENS_MAX for taker in takers):
            return False
        for taker in takers:
            self._tokens[number][taker] += 1
        self._counters[f"{unit.name}_count"] += 1
        unit.busy = False
        return True

    def _count(self, instruction: Instruction) -> None:
        if isinstance(instruction, (Load, Store)):
            self._counters[f"{instruction.name}_chunks"] += instruction.rows * instruction.length
        if isinstance(instruction, Gemm):
            self._counters["array_busy"] += instruction.rows * instruction.steps * instruction.blocks
