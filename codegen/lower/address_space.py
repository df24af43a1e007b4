"""Addresses of a program before its data is placed: its own constants, and scratch that all programs share."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES
from tvm_ahcq.codegen.isa.generated.isa import Load, Store
from tvm_ahcq.errors import DeviceError

CONSTANTS_AT = 1 << 31
"""Constants are addressed from here on until :func:`move_constants` says where they lie."""

_ALIGNMENT = 64


class DeviceMemory:
    """External memory of one program.

    Scratch (inputs, results, and data between stages) begins at address 0 and is the same for all programs, which run
    one after the other; constants (weights, tables) are each program's own.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._constants = self._scratch = 0

    def constant(self, data: bytes | np.ndarray) -> int:
        """Add a constant; returns its address. Arrays are taken as they lie in memory."""
        data = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        address = CONSTANTS_AT + self._constants
        self._pieces.append(data + bytes(-len(data) % _ALIGNMENT))
        self._constants += len(self._pieces[-1])
        return address

    def scratch(self, size: int) -> int:
        """Reserve `size` bytes of scratch; returns their address."""
        address = self._scratch
        self._scratch += size + -size % _ALIGNMENT
        return address

    @property
    def constants(self) -> bytes:
        """All constants; their first byte has address ``CONSTANTS_AT``."""
        return b"".join(self._pieces)

    @property
    def scratch_bytes(self) -> int:
        """Size of the scratch."""
        return self._scratch


def move_constants(program: bytes, address: int) -> bytes:
    """Return the program with its constants at `address`.

    Raises
    ------
    DeviceError
        If they would leave the 32 bits of an address.
    """
    words = np.frombuffer(program, "<u8").reshape(-1, INSTRUCTION_BYTES // 8).copy()
    opcodes = words[:, 0] & np.uint64(15)
    for kind in (Load, Store):
        bit, width = kind.layout["address"]
        word, shift = divmod(bit, 64)
        assert width == 32 and shift + width <= 64, "addresses lie within one word of an instruction"
        mask = np.uint64(0xFFFFFFFF)
        given = words[:, word] >> np.uint64(shift) & mask
        chosen = (opcodes == kind.opcode) & (given >= CONSTANTS_AT)
        moved = given + np.uint64(address) - np.uint64(CONSTANTS_AT)
        if (moved[chosen] > mask).any():
            raise DeviceError("the constants of all programs together do not fit 32 bits of address")
        cleared = words[:, word] & ~(mask << np.uint64(shift))
        words[:, word] = np.where(chosen, cleared | moved << np.uint64(shift), words[:, word])
    return words.tobytes()
