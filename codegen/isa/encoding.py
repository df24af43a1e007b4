"""Instructions as bytes, and back."""

from __future__ import annotations

from collections.abc import Iterable

from tvm_ahcq.codegen.isa.generated.isa import INSTRUCTIONS, MEMORIES, UNITS
from tvm_ahcq.errors import DeviceError

INSTRUCTION_BYTES = 32

OPCODES = {entry["opcode"]: name for name, entry in INSTRUCTIONS.items()}
"""Opcode -> name."""


def instruction(name: str, *, pop: Iterable[str] = (), push: Iterable[str] = (), **values: int | str) -> bytes:
    """One instruction.

    Parameters
    ----------
    name : str
        Its name in ``isa.yaml``.
    pop, push : iterable of str
        Units to take a token from before it starts, and to give one to when it is complete.
    **values
        Fields; ``memory`` may be a name. Those left out are 0.

    Raises
    ------
    DeviceError
        For an unknown instruction or field, or a value that does not fit.
    """
    if name not in INSTRUCTIONS:
        raise DeviceError(f"No instruction is called {name!r}; there are {', '.join(INSTRUCTIONS)}.")
    entry = INSTRUCTIONS[name]
    if isinstance(values.get("memory"), str):
        values["memory"] = MEMORIES[values["memory"]]
    values |= {"opcode": entry["opcode"], "pop": _mask(pop), "push": _mask(push)}
    word = 0
    for field, value in values.items():
        if field not in entry["fields"]:
            raise DeviceError(f"{name} has no field {field!r}; it has {', '.join(entry['fields'])}.")
        bit, width = entry["fields"][field]
        if not -(1 << (width - 1)) <= int(value) < 1 << width:
            raise DeviceError(f"{name}: {field} = {value} does not fit {width} bits; split the instruction.")
        word |= (int(value) & ((1 << width) - 1)) << bit
    return word.to_bytes(INSTRUCTION_BYTES, "little")


def fields_of(data: bytes) -> tuple[str | None, dict[str, int]]:
    """Name (None if illegal) and unsigned fields of an instruction; ``reserved`` are the bits above its last field."""
    word = int.from_bytes(data, "little")
    name = OPCODES.get(word & 15)
    if name is None:
        return None, {}
    entry = INSTRUCTIONS[name]
    values = {field: (word >> bit) & ((1 << width) - 1) for field, (bit, width) in entry["fields"].items()}
    return name, values | {"reserved": word >> entry["bits"]}


def _mask(units: Iterable[str]) -> int:
    return sum(1 << UNITS.index(unit) for unit in set(units))
