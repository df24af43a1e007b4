"""Instructions as text."""

from __future__ import annotations

from collections.abc import Iterator

from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, fields_of
from tvm_ahcq.codegen.isa.generated.isa import INSTRUCTIONS, MEMORIES, UNITS

_NAMES = {number: name for name, number in MEMORIES.items()}
_HIDDEN = ("opcode", "pop", "push", "memory", "reserved")


def disassemble(program: bytes) -> Iterator[str]:
    """One line an instruction: index, tokens taken and given, name, fields that are not 0.

    Tokens are letters of units: ``L`` load, ``G`` gemm, ``V`` vector, ``S`` store.
    """
    for index in range(len(program) // INSTRUCTION_BYTES):
        name, values = fields_of(program[index * INSTRUCTION_BYTES : (index + 1) * INSTRUCTION_BYTES])
        if name is None:
            yield f"{index:6d}  illegal instruction"
            continue
        memory = f".{_NAMES.get(values['memory'], values['memory'])}" if "memory" in values else ""
        fields = [_field(field, values[field]) for field in INSTRUCTIONS[name]["fields"] if _shown(field, values)]
        tokens = f"{'<' + _letters(values['pop']):5s} {'>' + _letters(values['push']):5s}"
        yield f"{index:6d}  {tokens} {name + memory:13s} {' '.join(fields)}".rstrip()


def _shown(field: str, values: dict[str, int]) -> bool:
    return field not in _HIDDEN and values[field] != 0


def _field(name: str, value: int) -> str:
    return f"{name}={value:#x}" if name == "address" else f"{name}={value}"


def _letters(mask: int) -> str:
    return "".join(unit[0].upper() for number, unit in enumerate(UNITS) if mask >> number & 1)
