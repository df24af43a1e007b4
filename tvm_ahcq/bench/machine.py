"""The machine that a comparison ran on, for the reader of its table."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from tvm_ahcq.runtime import cpu

_PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "apache-tvm")
_SPEED = ("avx2", "avxvnni", "avx512f", "avx512vnni", "avx512bf16", "amx-int8", "amx-bf16", "neon", "dotprod")
"""Features that decide how fast products can be, by LLVM name."""


def processor() -> str:
    """Name of the processor, as the operating system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def features() -> list[str]:
    """Features of the processor that matter here; those that a runtime can use, not those that it does."""
    import tvm_ffi

    host = tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures", allow_missing=True)
    present = cpu.features() if host is None else {str(name) for name, on in host().items() if on}
    return [name for name in _SPEED if name in present]


def versions() -> dict[str, str]:
    """Versions of the runtimes that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
