"""Instructions as bytes, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tvm_ahcq.codegen.isa.generated.isa import HEADER, INSTRUCTIONS, MEMORIES, UNITS, Instruction
from tvm_ahcq.errors import DeviceError

INSTRUCTION_BYTES = 32

_BY_OPCODE = {kind.opcode: kind for kind in INSTRUCTIONS}
_OPCODE_MASK = (1 << HEADER["opcode"].width) - 1

MEMORY_NAMES = {number: name for name, number in MEMORIES.items()}
"""Id of a memory -> name."""


class Decoded(NamedTuple):
    """An instruction that was read from bytes.

    Attributes
    ----------
    instruction : Instruction
        Its fields, unsigned.
    pop, push : int
        Masks of units: tokens that it takes before it starts, and gives when it is complete.
    reserved : int
        Bits above its last field; not 0 is illegal.
    """

    instruction: Instruction
    pop: int
    push: int
    reserved: int


def encode(instruction: Instruction, pop: Iterable[str] = (), push: Iterable[str] = ()) -> bytes:
    """Return the bytes of an instruction.

    Parameters
    ----------
    instruction : Instruction
        Fields; signed ones may be negative.
    pop, push : iterable of str
        Units to take a token from before it starts, and to give one to when it is complete.

    Raises
    ------
    DeviceError
        For a value that does not fit its field.
    """
    word = instruction.opcode | _mask(pop) << HEADER["pop"].bit | _mask(push) << HEADER["push"].bit
    for field, (bit, width) in instruction.layout.items():
        value = getattr(instruction, field)
        if field == "memory":
            value = MEMORIES[value]
        if not -(1 << (width - 1)) <= value < 1 << width:
            raise DeviceError(
                f"{instruction.name}: {field} = {value} does not fit {width} bits; split the instruction."
            )
        word |= (int(value) & ((1 << width) - 1)) << bit
    return word.to_bytes(INSTRUCTION_BYTES, "little")


def decode(data: bytes) -> Decoded | None:
    """Return the instruction in 32 bytes, legal or not; None if there is no such opcode."""
    word = int.from_bytes(data, "little")
    kind = _BY_OPCODE.get(word & _OPCODE_MASK)
    if kind is None:
        return None
    values: dict[str, int | str] = {
        field: (word >> bit) & ((1 << width) - 1) for field, (bit, width) in kind.layout.items()
    }
    if "memory" in values:
        values["memory"] = MEMORY_NAMES[int(values["memory"])]
    pop, push = ((word >> HEADER[name].bit) & ((1 << HEADER[name].width) - 1) for name in ("pop", "push"))
    return Decoded(kind(**values), pop, push, word >> kind.bits)


def instruction_count(program: bytes) -> int:
    """Return the number of instructions in a program."""
    return len(program) // INSTRUCTION_BYTES


def _mask(units: Iterable[str]) -> int:
    return sum(1 << UNITS.index(unit) for unit in set(units))
