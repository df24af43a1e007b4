"""Accelerators by name: simulators and boards, near or remote. The Python face of ``runtime/device.h``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm_ahcq.codegen.hardware.model.machine import Result
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.isa.generated.isa import ERRORS, EXACT_COUNTERS, REGISTERS
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.accelerator import DEVICES, check_name
from tvm_ahcq.runtime.ffi import ahcq_library, tvm_runtime

_ERROR_NAMES = {code: name for name, code in ERRORS.items()}
_COUNTERS = [name for name, (offset, _) in REGISTERS.items() if offset >= REGISTERS["cycles"][0]]


@dataclass(frozen=True)
class Timing:
    """Behaviour of the memory behind a simulated accelerator.

    Attributes
    ----------
    latency : int
        Cycles from an address to its first beat.
    bytes_per_cycle : int, optional
        In each direction, a divisor of the bytes of a beat; as many as the bus carries by default.
    stall_permille : int
        Chance that a handshake is refused for a cycle; RTL only.
    seed : int
        Of the stalls.
    """

    latency: int = 40
    bytes_per_cycle: int | None = None
    stall_permille: int = 0
    seed: int = 1


def open_device(
    name: str,
    config: Config | str | None = None,
    *,
    memory_bytes: int = 1 << 26,
    timing: Timing | None = None,
    threads: int = 0,
    estimate: bool = True,
    kernels: str = "",
) -> Device:
    """Open an accelerator.

    Parameters
    ----------
    name : str
        ``fsim`` (functional simulator), ``rtl`` (Verilated RTL, built on first use) or ``board:<uio>,<udmabuf>``, as in
        ``board:/dev/uio0,/dev/udmabuf0``; behind the server of another machine with ``rpc:<host>:<port>/`` before it.
    config : Config or str, optional
        Configuration to simulate, ``ecp5_16x16`` by default; of a board, the one that it must have.
    memory_bytes : int
        External memory of a simulated accelerator.
    timing : Timing, optional
        Of that memory.
    threads : int
        Of ``fsim``; 0 for all processors.
    estimate : bool
        True if ``fsim`` counts cycles; without, its counters of time stay 0.
    kernels : str
        Of ``fsim``: ``generic``, ``avx2`` or ``avx512vnni``; the best of this processor if empty.

    Raises
    ------
    DeviceError
        If there is no such back end or configuration, or the device cannot be opened.
    """
    check_name(name)
    place, inner = "", name
    if name.startswith("rpc:"):
        tvm_runtime()  # it has the RPC
        place, _, inner = name.partition("/")
        place += "/"
    backend, _, rest = inner.partition(":")
    timing = timing or Timing()
    if backend == "board":
        chosen = named(config) if isinstance(config, str) else config
        return _required(Device(name), chosen)
    if rest:
        raise DeviceError(f"{name!r} says more than which device; give its options as arguments. There are {DEVICES}.")
    chosen = config if isinstance(config, Config) else named(config or "ecp5_16x16")
    options = f"memory={memory_bytes},latency={timing.latency},width={timing.bytes_per_cycle or 0}"
    if backend == "fsim":
        options += f",threads={threads},timing={int(estimate)}" + (f",kernels={kernels}" if kernels else "")
        return Device(f"{place}fsim:{chosen.name},{options}")
    built = chosen.name if place else _built(chosen)
    return Device(f"{place}rtl:{built},{options},stalls={timing.stall_permille},seed={timing.seed}")


def _required(device: Device, config: Config | None) -> Device:
    """Return the device if it has this configuration; else close it."""
    try:
        if config is not None:
            device.require_config(config)
    except DeviceError:
        device.close()
        raise
    return device


def _built(config: Config) -> str:
    """Library of the simulated RTL."""
    from tvm_ahcq.codegen.hardware.simulator import build

    return str(build(config))


class Device:
    """An open accelerator; a context manager that closes it.

    Addresses are those that the device sees. A simulated memory begins at 0; that of a board where its buffer lies:
    programs that were made for memory from 0 go through :func:`relocate`.

    Parameters
    ----------
    name : str
        As ``OpenDevice`` of ``runtime/device.h`` takes it; :func:`open_device` writes it.

    Raises
    ------
    DeviceError
        From every method, where the device cannot do what it is asked to.
    """

    def __init__(self, name: str) -> None:
        self._device = _function("ahcq.open_device")(name)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the device and its memory."""
        self._device.close()

    @property
    def name(self) -> str:
        """Back end and configuration."""
        return str(self._device.name())

    @property
    def memory_bytes(self) -> int:
        """Size of external memory."""
        return int(self._device.memory_bytes())

    @property
    def memory_base(self) -> int:
        """Address of its first byte."""
        return int(self._device.memory_base())

    def allocate(self, size: int) -> int:
        """Allocate external memory; returns its address, a multiple of 64."""
        return int(self._device.allocate(size))

    def release(self, address: int) -> None:
        """Release the allocation at `address`, and all later ones."""
        self._device.release(address)

    def copy_in(self, address: int, data: bytes | bytearray) -> None:
        """Write external memory."""
        self._device.copy_in(address, bytes(data))

    def copy_out(self, address: int, size: int) -> bytes:
        """Read external memory."""
        return bytes(self._device.copy_out(address, size))

    def write_register(self, name: str, value: int) -> None:
        """Write a register by its name in ``isa.yaml``."""
        self._device.write_register(REGISTERS[name][0], value)

    def read_register(self, name: str) -> int:
        """Read a register by its name in ``isa.yaml``."""
        return int(self._device.read_register(REGISTERS[name][0]))

    def submit(self, program: int, length: int) -> None:
        """Start a program of `length` instructions at address `program`; all memory is its window."""
        self._device.submit(program, length)

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for the end of the program; False if it still runs after that many seconds."""
        return bool(self._device.wait(float(seconds)))

    def soft_reset(self, seconds: float = 10.0) -> bool:
        """Reset to idle; False if transfers are not answered in time."""
        return bool(self._device.soft_reset(float(seconds)))

    def set_faults(self, first: int, end: int) -> None:
        """Make bytes of a simulated memory answer with a bus error; none if `first` is `end`."""
        self._device.set_faults(first, end)

    def require_config(self, config: Config) -> None:
        """Raise if programs for `config` cannot run on the device."""
        self._device.require_config(config.hash)

    def counters(self) -> dict[str, int]:
        """Return all counters of the last program."""
        return {name: self.read_register(name) for name in _COUNTERS}

    def run(self, program: int, length: int, seconds: float = 60.0) -> Result:
        """Submit a program and wait for it; returns its result as the model gives it."""
        self.submit(program, length)
        if not self.wait(seconds):
            raise DeviceError(f"{self.name}: the program still runs after {seconds} s; soft_reset() stops it.")
        counters = {name: self.read_register(name) for name in EXACT_COUNTERS}
        return Result(_ERROR_NAMES[self.read_register("error")], self.read_register("error_index"), counters)


def relocate(program: bytes, delta: int) -> bytes:
    """Return a program whose external addresses are `delta` bytes further on."""
    return bytes(_function("ahcq.relocate")(program, delta))


@lru_cache(maxsize=8)
def _function(name: str) -> Callable[..., Any]:
    """A function of the library, whose errors of kind ``DeviceError`` arrive as that class."""
    library = ahcq_library()
    library.register_error("DeviceError", DeviceError)
    return library.get_global_func(name)
