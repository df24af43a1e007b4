"""A picture of external memory, and the simplest way to put a program into it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ahcq.codegen.isa.generated.isa import INSTRUCTIONS
from tvm_ahcq.errors import DeviceError

from .encoding import INSTRUCTION_BYTES, instruction


class MemoryImage:
    """External memory that grows from address 0; every piece starts at a multiple of 64 bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def place(self, data: bytes | np.ndarray) -> int:
        """Puts data behind what is there; returns its address. Arrays are taken as they lie in memory."""
        data = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        address = self._size
        padded = data + bytes(-len(data) % 64)
        self._pieces.append(padded)
        self._size += len(padded)
        return address

    def reserve(self, size: int) -> int:
        """Room for `size` bytes, zero; returns its address."""
        return self.place(bytes(size))

    def finish(self, size: int | None = None) -> bytearray:
        """All of it, padded to `size` bytes if given."""
        if size is not None and size < self._size:
            raise DeviceError(f"The image has {self._size} bytes; {size} were asked for.")
        return bytearray(b"".join(self._pieces) + bytes((size or self._size) - self._size))


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


def instruction_count(program: bytes) -> int:
    """Instructions in a program."""
    return len(program) // INSTRUCTION_BYTES
