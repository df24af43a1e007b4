"""Loops of a processor's multiply instruction alone."""

from __future__ import annotations

import pytest

from tvm_ahcq.kernels.peak import peak_loops
from tvm_ahcq.target import host_features, resolve_target


@pytest.mark.parametrize("name", ["avx2", "avx512-vnni"])
def test_bytes_multiply_faster_than_floats(name: str):
    target = resolve_target(name)
    if not host_features().issuperset(target.cpu_features):
        pytest.skip(f"this machine cannot run code for {name}")
    loops = peak_loops(target)
    assert loops["int8"].rate(3) > 2 * loops["float32"].rate(3)


def test_a_target_without_a_known_instruction_has_no_loop():
    assert peak_loops(resolve_target("generic")) == {}
