"""Programs without overlap, for the tests of the numpy model and of the functional simulator."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.isa.encoding import encode
from tvm_ahcq.codegen.isa.generated.isa import Finish, Instruction


class SerialProgram:
    """A program in which every instruction waits for the one before it: no overlap, nothing to prove."""

    def __init__(self) -> None:
        self._instructions: list[Instruction] = []

    def add(self, instruction: Instruction) -> None:
        """Append an instruction."""
        self._instructions.append(instruction)

    def finish(self) -> bytes:
        """Return the bytes of the program, FINISH included."""
        units = [instruction.unit for instruction in self._instructions]
        program = []
        for i, instruction in enumerate(self._instructions):
            pop = [units[i - 1]] if i and units[i - 1] != units[i] else []
            push = [units[i + 1]] if i + 1 < len(units) and units[i + 1] != units[i] else []
            program.append(encode(instruction, pop, push))
        return b"".join([*program, encode(Finish())])

    def __len__(self) -> int:
        return len(self._instructions) + 1


@pytest.fixture
def serial_program() -> SerialProgram:
    """An empty program."""
    return SerialProgram()
