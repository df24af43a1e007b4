"""What is said about the machine."""

from __future__ import annotations

import torch

from tvm_ahcq.bench.machine import features, processor, versions
from tvm_ahcq.target import resolve_target


def test_features_include_those_that_our_kernels_use() -> None:
    used = {"avx2", "avx512f", "avx512vnni", "amx-int8", "dotprod"} & set(resolve_target("native").cpu_features)
    assert used <= set(features())


def test_versions_are_those_of_the_installed_packages() -> None:
    assert versions()["torch"] == torch.__version__
    assert processor()
