"""Features of this machine's CPU, compared with those that a bundle needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from tvm_ahcq.errors import BundleError, DeviceError

from .ffi import ahcq_library
from .manifest import TargetSpec

HUMAN_NAMES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avxvnni": "AVX-VNNI",
    "avx512f": "AVX512",
    "avx512bw": "AVX512-BW",
    "avx512vl": "AVX512-VL",
    "avx512dq": "AVX512-DQ",
    "avx512vnni": "AVX512 VNNI",
    "amx-int8": "AMX int8",
    "amx-tile": "AMX tiles",
    "neon": "NEON",
    "dotprod": "NEON dot product",
}
"""CPU features by LLVM name, weakest first of each family."""

_LEVELS = ("amx-int8", "avx512vnni", "avx512f", "avxvnni", "avx2", "dotprod", "neon")
"""Feature that best describes a machine, strongest first."""

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """LLVM names of the features of this CPU that kernels may use.

    Raises
    ------
    DeviceError
        The C++ library of this package is not built.
    """
    return frozenset(str(name) for name in ahcq_library().get_global_func("ahcq.runtime.cpu_features")())


def request_amx() -> None:
    """Ask the kernel, once a process, for the permission to use AMX tiles.

    Raises
    ------
    DeviceError
        The permission was refused.
    """
    if not ahcq_library().get_global_func("ahcq.runtime.request_amx")():
        raise DeviceError(
            "the operating system refused the use of AMX; it needs Linux 5.16 or newer and, in a virtual "
            "machine, AMX passed through; or recompile with --target generic"
        )


def check_target(name: str, target: TargetSpec, available: Collection[str] | None = None) -> None:
    """Refuse a bundle that this machine cannot run.

    Parameters
    ----------
    name : str
        The bundle, for the message.
    target : TargetSpec
        What it was compiled for.
    available : collection of str, optional
        CPU features; those of this machine by default.

    Raises
    ------
    BundleError
        As ``sam_b.ahcq: needs AMX int8, this machine has AVX2 only; recompile with ...``.
    """
    machine = platform.machine().lower()
    machine = _ARCHITECTURES.get(machine, machine)
    needed = target.triple.split("-")[0]
    if _ARCHITECTURES.get(needed, needed) != machine:
        raise BundleError(
            f"{name}: made for {needed}, this machine is {machine}; recompile with --target native or --target generic"
        )
    if not target.cpu_features:
        return
    present = features() if available is None else available
    missing = [feature for feature in target.cpu_features if feature not in present]
    if missing:
        named = [feature for feature in _LEVELS if feature in missing][:1] or missing  # the strongest implies the rest
        needs = ", ".join(HUMAN_NAMES.get(feature, feature) for feature in named)
        level = next((HUMAN_NAMES[feature] + " only" for feature in _LEVELS if feature in present), "none of these")
        raise BundleError(
            f"{name}: needs {needs}, this machine has {level}; recompile with --target native or --target generic"
        )


def choose_target(
    name: str,
    targets: Sequence[TargetSpec],
    wanted: str | None = None,
    check: bool = True,
    available: Collection[str] | None = None,
) -> TargetSpec:
    """The target of a bundle to run.

    Parameters
    ----------
    name : str
        The bundle, for messages.
    targets : sequence of TargetSpec
        What it has libraries for, best first.
    wanted : str, optional
        Name of the one to take, whatever would be best.
    check : bool
        False to take it, or the first, without asking whether it runs here.
    available : collection of str, optional
        CPU features; those of this machine by default.

    Raises
    ------
    BundleError
        There is no target of that name, or none runs on this machine.
    """
    if wanted is not None:
        targets = [target for target in targets if target.name == wanted] or targets
        if targets[0].name != wanted:
            names = ", ".join(target.name for target in targets)
            raise BundleError(f"{name}: has no library for target {wanted!r}; it has {names}")
    if not check:
        return targets[0]
    refusals = []
    for target in targets:
        try:
            check_target(name, target, available)
            return target
        except BundleError as error:
            refusals.append(error)
    if len(refusals) == 1:
        raise refusals[0]
    reasons = "; ".join(
        f"{target.name}: {str(refusal).removeprefix(f'{name}: ').split('; recompile')[0]}"
        for target, refusal in zip(targets, refusals, strict=True)
    )
    raise BundleError(
        f"{name}: none of its {len(targets)} targets runs here ({reasons}); recompile with --target native or "
        "--target generic"
    )


def default_threads() -> int:
    """Threads to compute with: the physical cores that this process may use, at least 1."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return max(1, os.cpu_count() or 1)
    cores = {_siblings(number) for number in allowed}
    return max(1, min(len(cores), _quota() or len(cores)))


def _siblings(number: int) -> str:
    """The hardware threads that share a core with this one, as one string; the number itself where unknown."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(number)


def _quota() -> int | None:
    """CPUs that the control group of a container grants, rounded up; None without a limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else -(-int(limit) // int(period))
    except (OSError, ValueError):
        return None
