"""CPU features and thread counts of this machine, against what the kernel reports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import tvm_ahcq
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime import cpu

PROC_NAMES = {
    "avxvnni": "avx_vnni",
    "avx512vnni": "avx512_vnni",
    "amx-int8": "amx_int8",
    "amx-tile": "amx_tile",
    "neon": "asimd",
    "dotprod": "asimddp",
}
"""Features that /proc/cpuinfo spells in another way."""


def test_features_are_those_that_the_kernel_reports():
    reported = set(Path("/proc/cpuinfo").read_text().split())
    for name in cpu.HUMAN_NAMES:
        assert (name in cpu.features()) == (PROC_NAMES.get(name, name) in reported), name


def test_amx_is_granted_exactly_where_the_cpu_has_it():
    if "amx-tile" in cpu.features():
        cpu.request_amx()
    else:
        with pytest.raises(DeviceError, match=r"refused the use of AMX.*--target generic"):
            cpu.request_amx()


def test_a_library_that_is_not_built_says_how_to_build_it(tmp_path):
    source = """
import sys, tvm_ahcq
tvm_ahcq.__path__[:] = [folder for folder in tvm_ahcq.__path__ if not folder.startswith(sys.argv[1])]
from tvm_ahcq.runtime import cpu
tvm_ahcq.__path__[:] = [sys.argv[1]]
cpu.features()
"""
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(tvm_ahcq.__file__).parents[1],
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("tvm_ahcq.errors.DeviceError: libtvm_ahcq.so was not found")
    assert str(tmp_path / "lib") in last and "pip install ." in last


def test_a_baseline_bundle_needs_no_library():
    from tvm_ahcq.runtime.manifest import TargetSpec

    cpu.check_target("x.ahcq", TargetSpec("generic", f"{platform.machine()}-linux-gnu"))


def test_threads_are_at_most_the_cpus_that_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    assert 1 <= cpu.default_threads() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cpu.default_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)
