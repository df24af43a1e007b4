"""Tokens for a list of instructions: units run ahead as far as their reads and writes allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DeviceError
from .config import Config
from .generated.isa import INSTRUCTIONS, LIMITS, MEMORIES, UNITS
from .program import instruction

Entry = tuple[str, dict[str, Any]]
"""Name and fields of an instruction without its tokens."""

_NAMES = {number: name for name, number in MEMORIES.items()}
_TOKENS_MAX = (1 << LIMITS["token_bits"]) - 1


@dataclass(frozen=True)
class Access:
    """Words ``first .. end - 1`` of a memory (bytes of external memory) that an instruction may touch."""

    memory: str
    first: int
    end: int
    write: bool


def accesses(entry: Entry, config: Config) -> list[Access]:
    """Everything that an instruction reads or writes; strided operands count as one stretch."""
    name, given = entry
    definition = INSTRUCTIONS[name]
    values = {field: 0 for field in definition["fields"]}
    values |= {field: MEMORIES[value] if isinstance(value, str) else value for field, value in given.items()}
    found = []
    for memory, base, terms, tail, *condition in definition["range"]:
        if condition:
            field, _, wanted = condition[0].partition("=")
            if values[field] != int(wanted or 1):
                continue
        memory = _NAMES[values["memory"]] if memory == "memory" else memory
        length = {"dim": config.dim, "one": 1}.get(tail) or values[tail]
        if memory == "dram":
            length *= LIMITS["chunk_bytes"]
        elif tail == "length":
            length = config.words(memory, length) or 0
        reach = sum((values[count] - 1) * values[stride] for count, stride in terms)
        found.append(Access(memory, values[base], values[base] + reach + length, base in definition["writes"]))
    if name == "gemm":
        found.append(Access("decode", 8 * values["decode"], 8 * values["decode"] + 8, False))
    if name == "prob" or (name == "scale" and values["memory"] != MEMORIES["vec"]):
        found.append(Access("encode", 0, config.depth("encode"), False))
    return found


class _History:
    """Which instruction of a unit was the last to read, and to write, each word of each memory.

    External memory counts in chunks. An array for each memory that the program touches, made when it is first needed.
    """

    def __init__(self, touches: Sequence[list[Access]]) -> None:
        self._sizes: dict[str, int] = {}
        for access in (access for touched in touches for access in touched):
            self._sizes[access.memory] = max(self._sizes.get(access.memory, 0), _granules(access).stop)
        self._last: dict[tuple[str, bool], np.ndarray] = {}

    def last_conflict(self, touched: list[Access]) -> int:
        """Index of the last instruction whose order with one that touches these matters, -1 if there is none."""
        last = -1
        for access in touched:
            for write in (True, False) if access.write else (True,):
                found = self._last.get((access.memory, write))
                if found is not None:
                    last = max(last, int(found[_granules(access)].max()))
        return last

    def add(self, index: int, touched: list[Access]) -> None:
        """Instruction `index`, the latest, touches these."""
        for access in touched:
            key = access.memory, access.write
            if key not in self._last:
                self._last[key] = np.full(self._sizes[access.memory], -1, np.int32)
            self._last[key][_granules(access)] = index


def _granules(access: Access) -> slice:
    size = LIMITS["chunk_bytes"] if access.memory == "dram" else 1
    return slice(access.first // size, -(-access.end // size))


def synchronise(entries: Sequence[Entry], config: Config) -> bytes:
    """The program of these instructions, with FINISH and with the tokens that keep its result that of one at a time.

    Of each pair of units, the taker waits for the last instruction of the giver that it depends on, unless an earlier
    token already stands for it.

    Raises
    ------
    DeviceError
        If more tokens between two units would be under way than a counter holds: the dependent instructions must come
        closer together.
    """
    touches = [accesses(entry, config) for entry in entries]
    history = [_History(touches) for _ in UNITS]
    synced = [[-1] * len(UNITS) for _ in UNITS]  # [giver][taker]: last instruction of the giver that was waited for
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    pop: list[set[int]] = [set() for _ in entries]
    push: list[set[int]] = [set() for _ in entries]
    for index, entry in enumerate(entries):
        taker = UNITS.index(INSTRUCTIONS[entry[0]]["unit"])
        touched = touches[index]
        for giver in range(len(UNITS)):
            needed = history[giver].last_conflict(touched) if giver != taker else -1
            if needed <= synced[giver][taker]:
                continue
            synced[giver][taker] = needed
            push[needed].add(taker)
            pop[index].add(giver)
            pairs.setdefault((giver, taker), []).append((needed, index))
        history[taker].add(index, touched)
    for (giver, taker), tokens in pairs.items():
        _check_counter(tokens, UNITS[giver], UNITS[taker])
    program = [
        instruction(name, pop=[UNITS[u] for u in pop[i]], push=[UNITS[u] for u in push[i]], **values)
        for i, (name, values) in enumerate(entries)
    ]
    return b"".join([*program, instruction("finish")])


def _check_counter(tokens: list[tuple[int, int]], giver: str, taker: str) -> None:
    """A giver that waits for room must never stand before the instruction that makes room."""
    for (_, taken), (given, _) in zip(tokens, tokens[_TOKENS_MAX:], strict=False):
        if taken > given:
            raise DeviceError(
                f"Instruction {given} of {giver} would give {taker} its {_TOKENS_MAX + 1}th token before instruction "
                f"{taken} takes the first; move the instructions of {taker} forward."
            )
