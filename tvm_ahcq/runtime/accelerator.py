"""The accelerator part of a loaded bundle: its device, programs and counters."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tvm_ahcq.errors import DeviceError

from .ffi import ahcq_library

DEFAULT_DEVICE = "fsim"
"""The functional simulator: it is part of the runtime library and runs anywhere."""

ON_ERROR = ("raise", "host")
"""Reactions to a failing device: raise, or continue on the functional simulator of the host, with equal results."""

SECONDS = 600.0
"""Longest time of one program on the device."""

RTL_BUILDER = "tvm_ahcq.codegen.hardware.simulator"
"""The module that builds the simulated RTL, loaded when a device asks for it: the runtime does not depend on it."""

DEVICES = "'fsim', 'rtl', 'board:/dev/uio0,/dev/udmabuf0', and 'rpc:HOST:PORT/' before any of them"
"""Names of devices, for messages."""


def check_name(name: str) -> None:
    """Check the name of a device, before anything is opened.

    Raises
    ------
    DeviceError
        It is none; the message lists the names.
    """
    backend, _, rest = name.partition(":")
    if backend == "rpc":
        place, slash, inner = rest.partition("/")
        host, _, port = place.partition(",")[0].rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 65536 and slash and inner):
            raise DeviceError(
                f"{name!r} is no device behind a server; expected rpc:HOST:PORT/DEVICE, such as "
                "rpc:192.168.1.2:9090/fsim."
            )
        backend = inner.partition(":")[0]
    if backend not in ("fsim", "rtl", "board"):
        raise DeviceError(f"No accelerator is called {name!r}; there are {DEVICES}.")


@dataclass(frozen=True)
class DeviceOptions:
    """Choice of the device for offloaded operators.

    Attributes
    ----------
    name : str
        ``fsim``, ``rtl``, ``board:<uio>,<udmabuf>``, or ``rpc:<host>:<port>/`` before any of them; options that
        ``codegen/runtime/device/device.h`` documents may follow.
    on_error : str
        One of :data:`ON_ERROR`.
    seconds : float
        Longest time of one program.
    """

    name: str = DEFAULT_DEVICE
    on_error: str = "raise"
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise DeviceError(f"on_device_error is {self.on_error!r}; expected one of {', '.join(ON_ERROR)}.")
        check_name(self.name)
        if not self.seconds > 0:
            raise DeviceError(f"A program cannot end within {self.seconds:g} s; allow more than 0.")


@dataclass(frozen=True)
class ProgramCounters:
    """Counters of an offloaded operator.

    Attributes
    ----------
    symbol : str
        Its name in the library.
    calls : int
        Calls since the bundle was loaded.
    repeats : int
        Repeat count of the program's rows in its last call: prompts, or tokens of all prompts; 1 where its work depends
        on neither.
    counters : dict of str to int
        Of its last call: cycles, busy cycles of each unit, chunks of 8 bytes loaded and stored.
    """

    symbol: str
    calls: int
    repeats: int
    counters: dict[str, int]


class Accelerator:
    """The runtime modules inside a loaded library.

    Parameters
    ----------
    library : Module
        As loaded.
    options : DeviceOptions
        Device to run on. The functional simulator in this process, which cannot be absent, is opened by the first call;
        any other device now, so that one that is absent, busy or of another configuration is known before work starts.

    Raises
    ------
    DeviceError
        The library holds no programs, the simulated RTL cannot be built, or the device cannot be used.
    """

    def __init__(self, library: Any, options: DeviceOptions) -> None:
        self._modules = [module for module in library.imports if module.kind == "ahcq"]
        if not self._modules:
            raise DeviceError("The library holds no programs for an accelerator; compile the model again.")
        self.config = str(self._modules[0]["ahcq.describe"]()[0])
        self.options = options
        name = full_name(options.name, self.config)
        for module in self._modules:
            module["ahcq.configure"](name, options.on_error, float(options.seconds))
            if name.partition(":")[0] != "fsim":
                module["ahcq.open"]()
                if str(module["ahcq.describe"]()[3]).startswith("fsim"):
                    name = full_name("fsim", self.config)  # the host has taken over; do not try again for each module

    @property
    def memory_bytes(self) -> int:
        """Bytes of external memory that all programs together need of one device, such as a board."""
        return sum(-int(module["ahcq.describe"]()[2]) // 64 * -64 for module in self._modules)

    @property
    def device(self) -> str:
        """Name of the open device, with its configuration; "" before the first call."""
        return str(self._modules[0]["ahcq.describe"]()[3])

    def counters(self) -> list[ProgramCounters]:
        """Return the counters of each offloaded operator, in the order of the library."""
        counters = []
        for module in self._modules:
            names = [str(name) for name in module["ahcq.counter_names"]()]
            for symbol, calls, *values, repeats in module["ahcq.counters"]():
                numbers = dict(zip(names, map(int, values), strict=True))
                counters.append(ProgramCounters(str(symbol), int(calls), int(repeats), numbers))
        return counters

    def program(self, symbol: str) -> bytes:
        """Return the instructions of an offloaded operator.

        Raises
        ------
        DeviceError
            Nothing offloaded has this name.
        """
        for module in self._modules:
            if symbol in [str(entry[0]) for entry in module["ahcq.counters"]()]:
                return bytes(module["ahcq.program"](symbol))
        raise DeviceError(f"Nothing offloaded is called {symbol!r}.")


def prepare() -> None:
    """Load the runtime library, which reads the accelerator modules inside a compiled library.

    Raises
    ------
    DeviceError
        It is not built, or older than this package.
    """
    library = ahcq_library()
    library.register_error("DeviceError", DeviceError)
    if library.get_global_func("ffi.Module.load_from_bytes.ahcq", allow_missing=True) is None:
        raise DeviceError("libtvm_ahcq is older than this package; build it again with `pip install .`")


def full_name(name: str, config: str) -> str:
    """Return the name as ``OpenDevice`` of ``runtime/device/device.h`` takes it; the RTL is built if it is not.

    Raises
    ------
    DeviceError
        If the simulated RTL cannot be built.
    """
    backend, _, rest = name.partition(":")
    if backend == "rtl" and not rest:
        return f"rtl:{import_module(RTL_BUILDER).build_named(config)}"
    if backend == "fsim" and not rest:
        return f"fsim:{config}"
    return name
