"""Instructions as text."""

from __future__ import annotations

from collections.abc import Iterator

from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, decode, instruction_count
from tvm_ahcq.codegen.isa.generated.isa import UNITS, Instruction


def disassemble(program: bytes) -> Iterator[str]:
    """Yield one line an instruction: index, tokens taken and given, name, fields that are not 0.

    Tokens are letters of units: ``L`` load, ``G`` gemm, ``V`` vector, ``S`` store.
    """
    for index in range(instruction_count(program)):
        decoded = decode(program[index * INSTRUCTION_BYTES : (index + 1) * INSTRUCTION_BYTES])
        if decoded is None:
            yield f"{index:6d}  illegal instruction"
            continue
        tokens = f"{'<' + _letters(decoded.pop):5s} {'>' + _letters(decoded.push):5s}"
        yield f"{index:6d}  {tokens} {_mnemonic(decoded.instruction):13s} {_fields(decoded.instruction)}".rstrip()


def _mnemonic(instruction: Instruction) -> str:
    memory = getattr(instruction, "memory", "")
    return f"{instruction.name}.{memory}" if memory else instruction.name


def _fields(instruction: Instruction) -> str:
    values = {name: getattr(instruction, name) for name in instruction.layout if name != "memory"}
    return " ".join(
        f"{name}={value:#x}" if name == "address" else f"{name}={value}" for name, value in values.items() if value
    )


def _letters(mask: int) -> str:
    return "".join(unit[0].upper() for number, unit in enumerate(UNITS) if mask >> number & 1)
