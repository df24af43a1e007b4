"""The C++ runtime library, loaded from Python, against what the kernel says of the processor."""

from __future__ import annotations

import platform
from pathlib import Path
from types import ModuleType

import pytest
import tvm_ffi

from tvm_ahcq.runtime.ffi import ahcq_library

LINUX_NAME = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512vl": "avx512vl",
    "avx512dq": "avx512dq",
    "avx512vnni": "avx512_vnni",
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
    "neon": "asimd",
    "dotprod": "asimddp",
}
"""Our (LLVM's) names, and those of /proc/cpuinfo, which leaves out what the kernel does not enable."""


@pytest.fixture(scope="module")
def library() -> ModuleType:
    return ahcq_library()


def cpuinfo_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    pytest.skip("/proc/cpuinfo names no processor flags here")


def test_features_agree_with_the_kernels_list(library: ModuleType) -> None:
    features = set(tvm_ffi.get_global_func("ahcq.runtime.cpu_features")())
    flags = cpuinfo_flags()
    assert features == {ours for ours, theirs in LINUX_NAME.items() if theirs in flags}


def test_amx_permission_is_granted_exactly_where_amx_exists_and_can_be_asked_twice(library: ModuleType) -> None:
    request = tvm_ffi.get_global_func("ahcq.runtime.request_amx")
    has_amx = platform.machine() == "x86_64" and "amx_tile" in cpuinfo_flags()
    assert [request(), request()] == [has_amx, has_amx]
