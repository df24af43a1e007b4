"""A mock board: two files stand for the registers and the memory of an FPGA.

The numpy model executes what the driver starts, so that the driver of ``board:`` (``runtime/board_device.cc``) is
tested against something that shares no code with it. Registers are a plain file: a command stays in ``control`` until
it has been obeyed, then the word is 0 again, as the hardware's reads; ``irq_status`` is cleared by the next start.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from pathlib import Path

from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.generated.isa import ERRORS, REGISTERS, VERSION

REGISTER_BYTES = 4096
_ID, _START, _RESET = 0x41484351, 1, 2
_IDLE, _BUSY, _DONE, _ERROR = 0, 1, 2, 4
_POLL_SECONDS = 2e-4


class MockBoard:
    """A board whose files a thread serves while the context is open.

    Parameters
    ----------
    folder : Path
        Folder for the files ``registers`` and ``memory``.
    config : Config
        Of the accelerator.
    memory_bytes : int
        Size of the memory.
    seconds : float
        Time for which each program stays busy.
    """

    def __init__(self, folder: Path, config: Config, memory_bytes: int, seconds: float = 0.0) -> None:
        self.registers, self.memory = folder / "registers", folder / "memory"
        self.config, self.seconds = config, seconds
        self.registers.write_bytes(bytes(REGISTER_BYTES))
        self.memory.write_bytes(bytes(memory_bytes))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def device_name(self) -> str:
        """Name for :func:`tvm_ahcq.codegen.devices.device.open_device`."""
        return f"board:{self.registers},{self.memory}"

    def __enter__(self) -> MockBoard:
        with self.registers.open("r+b") as registers, self.memory.open("r+b") as memory:
            self._words = mmap.mmap(registers.fileno(), 0)
            self._bytes = mmap.mmap(memory.fileno(), 0)
        self._machine = Machine(self.config, self._bytes)  # type: ignore[arg-type]  # a mapped bytearray
        for name, value in {"id": _ID, "version": VERSION, "config_hash": self.config.hash, "watchdog": 100000}.items():
            self.write(name, value)
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join()
        self._words.close()
        self._bytes.close()

    def write(self, name: str, value: int) -> None:
        """Set a register, as the hardware does."""
        struct.pack_into("<I", self._words, REGISTERS[name][0], value)

    def read(self, name: str) -> int:
        """Return the value of a register."""
        return int(struct.unpack_from("<I", self._words, REGISTERS[name][0])[0])

    def _serve(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            command = self.read("control")
            if command & _RESET:
                self._finish(_IDLE, "none", 0)
                self.write("control", 0)
            elif command & _START:
                self.write("status", _BUSY)
                self.write("irq_status", 0)
                self.write("control", 0)
                self._run()

    def _run(self) -> None:
        time.sleep(self.seconds)
        window = self.read("memory_base"), self.read("memory_limit")
        result = self._machine.run(self.read("program"), self.read("program_length"), window)
        for name, value in result.counters.items():
            self.write(name, value)
        self._finish(_DONE if result.error == "none" else _ERROR, result.error, result.error_index)
        self.write("irq_status", 1)

    def _finish(self, status: int, error: str, index: int) -> None:
        self.write("error", ERRORS[error])
        self.write("error_index", index)
        self.write("status", status)
