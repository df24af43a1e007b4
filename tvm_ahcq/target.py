"""Processors that kernels are compiled for, under names that a user can type."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi

from tvm_ahcq.runtime.cpu import request_amx

from .errors import DeviceError, TargetError


@dataclass(frozen=True)
class HostTarget:
    """A processor to compile for.

    Attributes
    ----------
    name : str
        Name that a user types.
    config : dict
        Target options of TVM; ``tvm_target`` builds the object.
    cpu_features : tuple of str
        Instruction-set extensions that the compiled code needs, by LLVM name; a bundle is refused where one is missing.
    isa : str
        Family of hand-written integer kernels: ``"amx"``, ``"avx512vnni"``, ``"avxvnni"``, ``"avx2"``, ``"neon-dot"``,
        ``"neon"`` or ``"generic"`` (any LLVM target).
    """

    name: str
    config: dict[str, Any] = field(hash=False)
    cpu_features: tuple[str, ...]
    isa: str

    @property
    def layout(self) -> str:
        """Layout of int8 weights that the kernels of this target read (:func:`tvm_ahcq.runtime.weights.pack`)."""
        return "rows" if self.isa == "generic" else "vnni16"

    @property
    def triple(self) -> str:
        """LLVM target triple."""
        return self.config["mtriple"]

    def tvm_target(self) -> tvm.target.Target:
        """Return the target as an object of TVM."""
        return tvm.target.Target(self.config)


_X86 = "x86_64-linux-gnu"
_AVX2 = ("avx2", "fma")
_AVX_VNNI = (*_AVX2, "avxvnni")
_VNNI = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
_AMX = (*_VNNI, "amx-tile", "amx-int8")


def _x86(name: str, mcpu: str, features: tuple[str, ...], isa: str) -> HostTarget:
    """Return an x86-64 target: psABI level `mcpu` and extensions `features`, with 512-bit vectors if there are any."""
    config: dict[str, Any] = {"kind": "llvm", "mtriple": _X86, "mcpu": mcpu}
    if "avx512f" in features:
        # by default, LLVM avoids zmm registers at this level, for the sake of the first AVX-512 processors
        config["mattr"] = [*(f"+{feature}" for feature in features), "-prefer-256-bit"]
    elif "avxvnni" in features:
        config["mattr"] = ["+avxvnni"]
    return HostTarget(name, config, features, isa)


def _aarch64(name: str, features: tuple[str, ...], isa: str) -> HostTarget:
    """Return a 64-bit Arm target: the ARMv8-A baseline and extensions `features`."""
    config = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": [f"+{feature}" for feature in features]}
    return HostTarget(name, config, features, isa)


_TARGETS = {
    target.name: target
    for target in (
        _x86("generic", "x86-64", (), "generic"),
        _x86("avx2", "x86-64-v3", _AVX2, "avx2"),
        _x86("avx-vnni", "x86-64-v3", _AVX_VNNI, "avxvnni"),
        _x86("avx512-vnni", "x86-64-v4", _VNNI, "avx512vnni"),
        _x86("amx", "x86-64-v4", _AMX, "amx"),
        _aarch64("aarch64", ("neon",), "neon"),
        _aarch64("aarch64-dotprod", ("neon", "dotprod"), "neon-dot"),
    )
}

_BEST_FIRST = ("amx", "avx512-vnni", "avx-vnni", "avx2", "generic", "aarch64-dotprod", "aarch64")
"""Candidates for "native", and the order in which a bundle with several targets is searched."""


def target_names() -> tuple[str, ...]:
    """Return the names that :func:`resolve_target` accepts."""
    return ("native", *_TARGETS)


def host_features() -> frozenset[str]:
    """Return the instruction-set extensions of this machine that its operating system enables, by LLVM name."""
    features = tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return frozenset(str(name) for name, present in features.items() if present)


def _amx_is_granted() -> bool:
    """True if the operating system lets this process use AMX: virtual machines may report it and refuse it."""
    try:
        request_amx()
    except DeviceError:
        return False
    return True


def _native() -> HostTarget:
    """Return the best target that runs on this machine."""
    architecture = tvm.target.codegen.llvm_get_system_triple().split("-")[0]
    available = host_features()
    for name in _BEST_FIRST:
        target = _TARGETS[name]
        if target.triple.split("-")[0] == architecture and available.issuperset(target.cpu_features):
            if "amx-tile" not in target.cpu_features or _amx_is_granted():
                return target
    raise TargetError(
        f"no kernels for this machine ({architecture}); expected x86_64 or aarch64. "
        f"To compile for another machine, give one of {', '.join(_TARGETS)}."
    )


def resolve_target(name: str = "native") -> HostTarget:
    """Return the target called `name`; "native" is the best one for this machine.

    Raises
    ------
    TargetError
        The name is not known.
    """
    if name == "native":
        return _native()
    if name not in _TARGETS:
        raise TargetError(f"unknown target {name!r}; expected one of {', '.join(target_names())}")
    return _TARGETS[name]


def resolve_targets(names: str) -> tuple[HostTarget, ...]:
    """Return the targets of a list such as ``"amx,avx2"``, each once, best first.

    Raises
    ------
    TargetError
        A name is not known, or the list is empty.
    """
    targets = {target.name: target for target in map(resolve_target, names.replace(" ", "").split(","))}
    return tuple(sorted(targets.values(), key=lambda target: _BEST_FIRST.index(target.name)))


def link_options(target: HostTarget) -> dict[str, Any]:
    """Return options of ``export_library`` for a shared library of the target's architecture.

    Raises
    ------
    TargetError
        The architecture is not this machine's, and no linker for it is installed.
    """
    if target.triple.split("-")[0] == tvm.target.codegen.llvm_get_system_triple().split("-")[0]:
        return {}
    linker = f"{target.triple}-gcc"
    if shutil.which(linker) is None:
        raise TargetError(
            f"target {target.name!r} needs the linker {linker}, which is not installed; "
            f"on Debian: apt install gcc-{target.triple.replace('_', '-')}"
        )
    return {"fcompile": tvm.support.cc.cross_compiler(linker)}
