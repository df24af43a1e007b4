"""Programs without overlap, for the tests of the numpy model and of the functional simulator."""

from __future__ import annotations

from typing import Any

import pytest

from tvm_ahcq.codegen.isa.encoding import instruction
from tvm_ahcq.codegen.isa.generated.isa import INSTRUCTIONS


class SerialProgram:
    """A program in which every instruction waits for the one before it: no overlap, nothing to prove."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, dict[str, Any]]] = []

    def add(self, name: str, **values: Any) -> None:
        """Appends an instruction."""
        self._entries.append((name, values))

    def finish(self) -> bytes:
        """The bytes of the program, FINISH included."""
        units = [INSTRUCTIONS[name]["unit"] for name, _ in self._entries]
        out = []
        for i, (name, values) in enumerate(self._entries):
            pop = [units[i - 1]] if i and units[i - 1] != units[i] else []
            push = [units[i + 1]] if i + 1 < len(units) and units[i + 1] != units[i] else []
            out.append(instruction(name, pop=pop, push=push, **values))
        return b"".join([*out, instruction("finish")])

    def __len__(self) -> int:
        return len(self._entries) + 1


@pytest.fixture
def serial_program() -> SerialProgram:
    """An empty program."""
    return SerialProgram()
