"""Dependency tokens for a list of instructions: units run ahead as far as their reads and writes allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm_ahcq.codegen.isa.generated.isa import LIMITS, UNITS, Finish, Gemm, Instruction, Prob, Scale
from tvm_ahcq.errors import DeviceError

from .config import Config
from .encoding import encode

_TOKENS_MAX = (1 << LIMITS["token_bits"]) - 1


@dataclass(frozen=True)
class Access:
    """Words ``first .. end - 1`` of a memory (bytes of external memory) that an instruction may touch."""

    memory: str
    first: int
    end: int
    write: bool

    def conflicts(self, other: Access) -> bool:
        """True if the order of the two matters."""
        overlap = self.first < other.end and other.first < self.end
        return self.memory == other.memory and overlap and (self.write or other.write)


def accesses(instruction: Instruction, config: Config) -> list[Access]:
    """Return everything that an instruction reads or writes; strided operands count as one stretch."""
    touched = []
    for memory, base, terms, tail, condition in instruction.ranges:
        if condition is not None and getattr(instruction, condition[0]) != condition[1]:
            continue
        memory = getattr(instruction, memory) if memory == "memory" else memory
        length = {"dim": config.dim, "one": 1}.get(tail) or getattr(instruction, tail)
        if memory == "dram":
            length *= LIMITS["chunk_bytes"]
        elif tail == "length":
            length = config.words(memory, length) or 0
        reach = sum((getattr(instruction, count) - 1) * getattr(instruction, stride) for count, stride in terms)
        first = getattr(instruction, base)
        touched.append(Access(memory, first, first + reach + length, base in instruction.writes))
    if isinstance(instruction, Gemm):
        touched.append(Access("decode", 8 * instruction.decode, 8 * instruction.decode + 8, False))
    if isinstance(instruction, Prob) or (isinstance(instruction, Scale) and instruction.memory != "vec"):
        touched.append(Access("encode", 0, config.depth("encode"), False))
    return touched


Tokens = tuple[frozenset[int], frozenset[int]]
"""Numbers of the units that an instruction takes a token from before it starts, and that it gives one to."""


def dependency_tokens(instructions: Sequence[Instruction], config: Config) -> list[Tokens]:
    """Return tokens that keep the result of these instructions that of one at a time.

    Of each pair of units, the taker waits for the last instruction of the giver that it depends on, unless an earlier
    token already stands for it.

    Raises
    ------
    DeviceError
        If more tokens between two units would be under way than a counter holds: the dependent instructions must come
        closer together.
    """
    history: list[dict[str, _History]] = [{} for _ in UNITS]
    synced = [[-1] * len(UNITS) for _ in UNITS]  # [giver][taker]: last instruction of the giver that was waited for
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    pop: list[set[int]] = [set() for _ in instructions]
    push: list[set[int]] = [set() for _ in instructions]
    for index, instruction in enumerate(instructions):
        taker = UNITS.index(instruction.unit)
        touched = accesses(instruction, config)
        for giver in range(len(UNITS)):
            needed = _last_conflict(history[giver], touched, synced[giver][taker]) if giver != taker else None
            if needed is None:
                continue
            synced[giver][taker] = needed
            push[needed].add(taker)
            pop[index].add(giver)
            pairs.setdefault((giver, taker), []).append((needed, index))
        for access in touched:
            history[taker].setdefault(access.memory, _History()).add(index, access)
    for (giver, taker), tokens in pairs.items():
        _check_counter(tokens, UNITS[giver], UNITS[taker])
    return [(frozenset(takes), frozenset(gives)) for takes, gives in zip(pop, push, strict=True)]


def encode_program(instructions: Sequence[Instruction], tokens: Sequence[Tokens]) -> bytes:
    """Return the program of these instructions, with FINISH."""
    program = [
        encode(instruction, pop=[UNITS[u] for u in pop], push=[UNITS[u] for u in push])
        for instruction, (pop, push) in zip(instructions, tokens, strict=True)
    ]
    return b"".join([*program, encode(Finish())])


def insert_dependency_tokens(instructions: Sequence[Instruction], config: Config) -> bytes:
    """Return the program of these instructions, with FINISH and the tokens of :func:`dependency_tokens`."""
    return encode_program(instructions, dependency_tokens(instructions, config))


class _History:
    """Accesses of a unit to one memory, in order, and the words between which they all lie."""

    def __init__(self) -> None:
        self._touched: list[tuple[int, Access]] = []
        self._first, self._end = 0, 0

    def add(self, index: int, access: Access) -> None:
        self._first = min(self._first, access.first) if self._touched else access.first
        self._end = max(self._end, access.end)
        self._touched.append((index, access))

    def last_conflict(self, access: Access, known: int) -> int:
        """Return the last instruction behind `known` whose order with `access` matters, else `known`."""
        if access.first >= self._end or access.end <= self._first:
            return known
        for index, earlier in reversed(self._touched):
            if index <= known:
                break
            if access.conflicts(earlier):
                return index
        return known


def _last_conflict(history: dict[str, _History], touched: list[Access], known: int) -> int | None:
    last = known
    for access in touched:
        if access.memory in history:
            last = history[access.memory].last_conflict(access, last)
    return last if last > known else None


def _check_counter(tokens: list[tuple[int, int]], giver: str, taker: str) -> None:
    """Check that no giver waits for a full counter in front of the instruction that empties it."""
    for (_, taking), (giving, _) in zip(tokens, tokens[_TOKENS_MAX:], strict=False):
        if taking > giving:
            raise DeviceError(
                f"Instruction {giving} of {giver} would give {taker} its {_TOKENS_MAX + 1}th token before instruction "
                f"{taking} takes the first; move the instructions of {taker} forward."
            )
