"""The functional simulator against the numpy model, on every configuration and with every set of kernels."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.device import Device
from tvm_ahcq.codegen.hardware.agreement import disagreement
from tvm_ahcq.codegen.hardware.config import named
from tvm_ahcq.codegen.hardware.generated.isa import CONFIGS
from tvm_ahcq.codegen.hardware.random_program import FAULTS
from tvm_ahcq.errors import DeviceError


@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs_give_the_models_memory_and_counters(name: str) -> None:
    for seed in range(30):
        assert disagreement(named(name), seed, backends=["fsim"]) is None


@pytest.mark.parametrize("kernels", ["generic", "avx2", "avx512vnni"])
def test_every_set_of_kernels_gives_the_same(kernels: str) -> None:
    try:
        Device(f"fsim:sim_4x4,memory=4096,kernels={kernels}").close()
    except DeviceError:
        pytest.skip(f"this processor cannot run {kernels}")
    for name in CONFIGS:
        for seed in range(100, 112):
            assert disagreement(named(name), seed, backends=["fsim"], kernels=kernels) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_programs_with_a_fault_end_as_the_model_says(fault: str) -> None:
    for name in CONFIGS:
        for seed in range(10):
            assert disagreement(named(name), seed, fault, backends=["fsim"]) is None
