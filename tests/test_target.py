"""Names of compilation targets, and what they promise of the code."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T

from tvm_ahcq.errors import TargetError
from tvm_ahcq.target import host_features, resolve_target, resolve_targets, target_names

x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64 extensions")


def double(n: int) -> tvm.tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((n,), "float32"), y: T.Buffer((n,), "float32")):
        for i in range(n):
            y[i] = x[i] * T.float32(2)

    return main


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(TargetError, match=r"unknown target 'vax'; expected one of native, generic, avx2"):
        resolve_target("vax")


@pytest.mark.parametrize("name", target_names())
def test_every_name_resolves_to_a_target_that_tvm_accepts(name: str):
    target = resolve_target(name)
    assert target.tvm_target().kind.name == "llvm"
    assert target.triple.split("-")[0] in ("x86_64", "aarch64")
    assert name in (target.name, "native")


@x86_only
def test_native_needs_only_what_the_machine_has():
    assert host_features().issuperset(resolve_target("native").cpu_features)


@x86_only
def test_host_features_agree_with_the_kernel():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(set(line.split()) for line in lines if line.startswith("flags"))
    names = {
        "avx2": "avx2",
        "fma": "fma",
        "avxvnni": "avx_vnni",
        "avx512f": "avx512f",
        "avx512vnni": "avx512_vnni",
    }
    for ours, theirs in names.items():
        assert (ours in host_features()) == (theirs in flags)


def test_a_list_is_sorted_best_first_without_repetition():
    names = [target.name for target in resolve_targets("generic, avx2,amx,avx2,aarch64")]
    assert names == ["amx", "avx2", "generic", "aarch64"]
    with pytest.raises(TargetError, match="unknown target 'vax'"):
        resolve_targets("avx2,vax")


def test_generic_uses_no_extension():
    assembly = tvm.compile(double(64), target=resolve_target("generic").tvm_target()).mod.inspect_source("asm")
    assert "ymm" not in assembly and "zmm" not in assembly


def test_avx512_target_uses_the_full_vector_width():
    assembly = tvm.compile(double(64), target=resolve_target("avx512-vnni").tvm_target()).mod.inspect_source("asm")
    assert "zmm" in assembly


def test_native_code_runs():
    built = tvm.compile(double(8), target=resolve_target("native").tvm_target())
    y = tvm.runtime.tensor(np.zeros(8, np.float32))
    built(tvm.runtime.tensor(np.arange(8, dtype=np.float32)), y)
    assert y.numpy().tolist() == [2.0 * i for i in range(8)]
