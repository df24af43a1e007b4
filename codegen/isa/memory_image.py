"""External memory of one program, laid out piece by piece."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.errors import DeviceError


class MemoryImage:
    """External memory that grows from address 0; every piece starts at a multiple of 64 bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def place(self, data: bytes | np.ndarray) -> int:
        """Append data; returns its address. Arrays are taken as they lie in memory."""
        data = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        address = self._size
        padded = data + bytes(-len(data) % 64)
        self._pieces.append(padded)
        self._size += len(padded)
        return address

    def reserve(self, size: int) -> int:
        """Append `size` bytes of zero; returns their address."""
        return self.place(bytes(size))

    def finish(self, size: int | None = None) -> bytearray:
        """Return all of the memory, padded to `size` bytes if given."""
        if size is not None and size < self._size:
            raise DeviceError(f"The image has {self._size} bytes; {size} were asked for.")
        return bytearray(b"".join(self._pieces) + bytes((size or self._size) - self._size))
