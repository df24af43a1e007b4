"""Static checks of a program: every instruction legal, tokens balanced, no deadlock, no race.

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
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, Decoded, decode, instruction_count
from tvm_ahcq.codegen.isa.generated.isa import LIMITS, UNITS, Finish
from tvm_ahcq.errors import DeviceError

_TOKENS_MAX = (1 << LIMITS["token_bits"]) - 1


@dataclass
class _Step:
    """An instruction of the program, and the last instruction of each unit that is complete when it starts."""

    index: int
    decoded: Decoded
    clock: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.decoded.instruction.name

    @property
    def unit(self) -> int:
        return UNITS.index(self.decoded.instruction.unit)


def verify(program: bytes, config: Config, memory_bytes: int, order: bool = True) -> None:
    """Check a program.

    Parameters
    ----------
    program : bytes
        Instructions, FINISH included.
    config : Config
        Accelerator.
    memory_bytes : int
        External memory that it may touch, from address 0.
    order : bool
        True to look for deadlocks and races: not needed if that was done for a program that differs in nothing but the
        numbers that it computes with.

    Raises
    ------
    DeviceError
        At the first fault, with the index of its instruction.
    """
    steps = _decode(program, config, memory_bytes)
    _balance(steps)
    if order:
        _order(steps)
        _races(steps, config)


def _decode(program: bytes, config: Config, memory_bytes: int) -> list[_Step]:
    """All instructions before FINISH, each of them legal."""
    steps: list[_Step] = []
    for index in range(instruction_count(program)):
        decoded = decode(program[index * INSTRUCTION_BYTES : (index + 1) * INSTRUCTION_BYTES])
        error = check(decoded, config, (0, memory_bytes))
        if error != "none" or decoded is None:
            name = None if decoded is None else decoded.instruction.name
            raise DeviceError(f"instruction {index} ({name}): {error.replace('_', ' ')}")
        if isinstance(decoded.instruction, Finish):
            if (index + 1) * INSTRUCTION_BYTES != len(program):
                raise DeviceError(f"instruction {index}: finish is not the last instruction")
            return steps
        steps.append(_Step(index, decoded))
    raise DeviceError("the program has no finish")


def _bits(mask: int) -> list[int]:
    return [unit for unit in range(len(UNITS)) if mask >> unit & 1]


def _balance(steps: list[_Step]) -> None:
    """Check that as many tokens are taken as given: the next program finds all counters at 0."""
    left = np.zeros((len(UNITS), len(UNITS)), int)
    for step in steps:
        unit = step.unit
        for taker in _bits(step.decoded.push):
            left[unit, taker] += 1
        for giver in _bits(step.decoded.pop):
            left[giver, unit] -= 1
    for giver, taker in np.argwhere(left):
        what = "more" if left[giver, taker] > 0 else "fewer"
        raise DeviceError(f"{UNITS[giver]} gives {UNITS[taker]} {abs(left[giver, taker])} tokens {what} than it takes")


def _order(steps: list[_Step]) -> None:
    """Run the program as far as tokens go, and note what each instruction has waited for."""
    queues: list[deque[_Step]] = [deque() for _ in UNITS]
    tokens: list[list[deque[list[int]]]] = [[deque() for _ in UNITS] for _ in UNITS]  # clocks of the givers
    clocks = [[-1] * len(UNITS) for _ in UNITS]
    waiting = deque(steps)
    moved = True
    while moved:
        moved = False
        while waiting and len(queues[waiting[0].unit]) < LIMITS["queue_depth"]:
            queues[waiting[0].unit].append(waiting.popleft())
            moved = True
        for unit, queue in enumerate(queues):
            if queue and _ready(queue[0], unit, tokens):
                _complete(queue.popleft(), unit, tokens, clocks)
                moved = True
    stuck = [queue[0] for queue in queues if queue]
    if stuck:
        first = min(stuck, key=lambda step: step.index)
        raise DeviceError(f"instruction {first.index} ({first.name}) waits for ever: deadlock")


def _ready(step: _Step, unit: int, tokens: list[list[deque[list[int]]]]) -> bool:
    """True if it can start, and give its tokens when it is done.

    A unit whose instruction is done but finds a counter full stands still; taking such an instruction only when its
    counters have room ends in the same deadlocks.
    """
    return all(tokens[giver][unit] for giver in _bits(step.decoded.pop)) and all(
        len(tokens[unit][taker]) < _TOKENS_MAX for taker in _bits(step.decoded.push)
    )


def _complete(step: _Step, unit: int, tokens: list[list[deque[list[int]]]], clocks: list[list[int]]) -> None:
    clocks_of_givers = [tokens[giver][unit].popleft() for giver in _bits(step.decoded.pop)]
    clock = [max(latest) for latest in zip(clocks[unit], *clocks_of_givers, strict=True)]
    step.clock = list(clock)
    clock[unit] = step.index
    clocks[unit] = clock
    for taker in _bits(step.decoded.push):
        tokens[unit][taker].append(clock)


class _History:
    """Accesses of a unit to one memory, in order."""

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
        """Return an instruction behind `known` that touches the same words, one of the two writing."""
        if access.first >= self._end or access.end <= self._first:
            return None
        rows = self._rows[: self._count]
        rows = rows[np.searchsorted(rows[:, 0], known, side="right") :]
        overlapping = (rows[:, 1] < access.end) & (rows[:, 2] > access.first)
        if not access.write:
            overlapping &= rows[:, 3] > 0
        return int(rows[overlapping][0, 0]) if overlapping.any() else None


def _races(steps: list[_Step], config: Config) -> None:
    histories: dict[tuple[int, str], _History] = {}
    for step in steps:
        unit = step.unit
        touched = accesses(step.decoded.instruction, config)
        for access in touched:
            for other in range(len(UNITS)):
                history = histories.get((other, access.memory))
                if other == unit or history is None:
                    continue
                earlier = history.conflict(access, step.clock[other])
                if earlier is not None:
                    raise DeviceError(
                        f"instruction {step.index} ({step.name}) may run before instruction {earlier} is "
                        f"done, and both touch the same words of {access.memory}"
                    )
        for access in touched:
            histories.setdefault((unit, access.memory), _History()).add(step.index, access)
