"""Checks a program without running it: every instruction legal, tokens balanced, no deadlock, no race.

What the device checks itself ends a program with an error; a race it cannot see. Here an instruction is ordered behind
another if tokens, or the order within a unit, make it so; two that touch the same words, one of them writing, and are
not ordered, are a hazard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from tvm_ahcq.codegen.hardware.model.check import check
from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import Access, accesses
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, fields_of
from tvm_ahcq.codegen.isa.generated.isa import INSTRUCTIONS, LIMITS, UNITS
from tvm_ahcq.errors import DeviceError

_TOKENS_MAX = (1 << LIMITS["token_bits"]) - 1


@dataclass
class _Instruction:
    index: int
    name: str
    values: dict[str, int]
    clock: list[int] = field(default_factory=list)
    """Of each unit, the last instruction that is complete when this one starts."""


def verify(program: bytes, config: Config, memory_bytes: int, order: bool = True) -> None:
    """Checks a program.

    Parameters
    ----------
    program : bytes
        Instructions, FINISH included.
    config : Config
        What it runs on.
    memory_bytes : int
        External memory that it may touch, from address 0.
    order : bool
        Whether to look for deadlocks and races: not needed if that was done for a program that differs in nothing but
        numbers to compute with.

    Raises
    ------
    DeviceError
        At the first fault, with the index of its instruction.
    """
    instructions = _decode(program, config, memory_bytes)
    _balance(instructions)
    if order:
        _order(instructions)
        _races(instructions, config)


def _decode(program: bytes, config: Config, memory_bytes: int) -> list[_Instruction]:
    """All instructions before FINISH, each of them legal."""
    found: list[_Instruction] = []
    for index in range(len(program) // INSTRUCTION_BYTES):
        data = program[index * INSTRUCTION_BYTES : (index + 1) * INSTRUCTION_BYTES]
        error = check(data, config, (0, memory_bytes))
        name, values = fields_of(data)
        if error != "none" or name is None:
            raise DeviceError(f"instruction {index} ({name}): {error.replace('_', ' ')}")
        if name == "finish":
            if (index + 1) * INSTRUCTION_BYTES != len(program):
                raise DeviceError(f"instruction {index}: finish is not the last instruction")
            return found
        found.append(_Instruction(index, name, values))
    raise DeviceError("the program has no finish")


def _unit(instruction: _Instruction) -> int:
    return UNITS.index(INSTRUCTIONS[instruction.name]["unit"])


def _bits(mask: int) -> list[int]:
    return [unit for unit in range(len(UNITS)) if mask >> unit & 1]


def _balance(instructions: list[_Instruction]) -> None:
    """As many tokens taken as given: the next program finds all counters at 0."""
    left = np.zeros((len(UNITS), len(UNITS)), int)
    for instruction in instructions:
        unit = _unit(instruction)
        for taker in _bits(instruction.values["push"]):
            left[unit, taker] += 1
        for giver in _bits(instruction.values["pop"]):
            left[giver, unit] -= 1
    for giver, taker in np.argwhere(left):
        what = "more" if left[giver, taker] > 0 else "fewer"
        raise DeviceError(f"{UNITS[giver]} gives {UNITS[taker]} {abs(left[giver, taker])} tokens {what} than it takes")


def _order(instructions: list[_Instruction]) -> None:
    """Runs the program as far as tokens go, and notes what each instruction has waited for."""
    queues: list[deque[_Instruction]] = [deque() for _ in UNITS]
    tokens: list[list[deque[list[int]]]] = [[deque() for _ in UNITS] for _ in UNITS]  # clocks of the givers
    clocks = [[-1] * len(UNITS) for _ in UNITS]
    waiting = deque(instructions)
    moved = True
    while moved:
        moved = False
        while waiting and len(queues[_unit(waiting[0])]) < LIMITS["queue_depth"]:
            queues[_unit(waiting[0])].append(waiting.popleft())
            moved = True
        for unit, queue in enumerate(queues):
            if queue and _ready(queue[0], unit, tokens):
                _complete(queue.popleft(), unit, tokens, clocks)
                moved = True
    stuck = [queue[0] for queue in queues if queue]
    if stuck:
        first = min(stuck, key=lambda instruction: instruction.index)
        raise DeviceError(f"instruction {first.index} ({first.name}) waits for ever: deadlock")


def _ready(instruction: _Instruction, unit: int, tokens: list[list[deque[list[int]]]]) -> bool:
    """Whether it can start, and give its tokens when it is done.

    A unit whose instruction is done but finds a counter full stands still; taking such an instruction only when its
    counters have room ends in the same deadlocks.
    """
    return all(tokens[giver][unit] for giver in _bits(instruction.values["pop"])) and all(
        len(tokens[unit][taker]) < _TOKENS_MAX for taker in _bits(instruction.values["push"])
    )


def _complete(
    instruction: _Instruction, unit: int, tokens: list[list[deque[list[int]]]], clocks: list[list[int]]
) -> None:
    taken = [tokens[giver][unit].popleft() for giver in _bits(instruction.values["pop"])]
    clock = [max(known) for known in zip(clocks[unit], *taken, strict=True)]
    instruction.clock = list(clock)
    clock[unit] = instruction.index
    clocks[unit] = clock
    for taker in _bits(instruction.values["push"]):
        tokens[unit][taker].append(clock)


class _History:
    """What a unit has touched of one memory, in order."""

    def __init__(self) -> None:
        self._rows = np.zeros((64, 4), np.int64)  # instruction, first, end, write
        self._count = 0
        self._first, self._end = 2**63, 0

    def add(self, index: int, access: Access) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._first, self._end = min(self._first, access.first), max(self._end, access.end)
        self._rows[self._count] = index, access.first, access.end, access.write
        self._count += 1

    def conflict(self, access: Access, known: int) -> int | None:
        """An instruction behind `known` that touches the same words, one of the two writing."""
        if access.first >= self._end or access.end <= self._first:
            return None
        rows = self._rows[: self._count]
        rows = rows[np.searchsorted(rows[:, 0], known, side="right") :]
        found = (rows[:, 1] < access.end) & (rows[:, 2] > access.first)
        if not access.write:
            found &= rows[:, 3] > 0
        return int(rows[found][0, 0]) if found.any() else None


def _races(instructions: list[_Instruction], config: Config) -> None:
    histories: dict[tuple[int, str], _History] = {}
    for instruction in instructions:
        unit = _unit(instruction)
        touched = accesses((instruction.name, instruction.values), config)
        for access in touched:
            for other in range(len(UNITS)):
                history = histories.get((other, access.memory))
                if other == unit or history is None:
                    continue
                earlier = history.conflict(access, instruction.clock[other])
                if earlier is not None:
                    raise DeviceError(
                        f"instruction {instruction.index} ({instruction.name}) may run before instruction {earlier} is "
                        f"done, and both touch the same words of {access.memory}"
                    )
        for access in touched:
            histories.setdefault((unit, access.memory), _History()).add(instruction.index, access)
