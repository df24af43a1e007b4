"""The functional simulator against the numpy model, on every configuration and with every set of kernels."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.devices.device import Device, open_device
from tvm_ahcq.codegen.hardware.cosim import find_mismatch
from tvm_ahcq.codegen.hardware.fuzz import FAULTS
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.generated.isa import CONFIGS, Gemm, Load, Logit, Prob, Scale, Store
from tvm_ahcq.codegen.isa.layout import fixed_scale
from tvm_ahcq.codegen.isa.memory_image import MemoryImage
from tvm_ahcq.errors import DeviceError


@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs_give_the_models_memory_and_counters(name: str) -> None:
    for seed in range(30):
        assert find_mismatch(named(name), seed, backends=["fsim"]) is None


@pytest.mark.parametrize("kernels", ["generic", "avx2", "avx512vnni"])
def test_every_set_of_kernels_gives_the_same(kernels: str) -> None:
    try:
        Device(f"fsim:sim_4x4,memory=4096,kernels={kernels}").close()
    except DeviceError:
        pytest.skip(f"this processor cannot run {kernels}")
    for name in CONFIGS:
        for seed in range(100, 112):
            assert find_mismatch(named(name), seed, backends=["fsim"], kernels=kernels) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_programs_with_a_fault_end_as_the_model_says(fault: str) -> None:
    for name in CONFIGS:
        for seed in range(10):
            assert find_mismatch(named(name), seed, fault, backends=["fsim"]) is None


@pytest.mark.parametrize("name", ["ecp5_16x16", "zu_64x64"])
def test_threads_share_the_rows_of_an_instruction_and_change_nothing(name: str, serial_program) -> None:
    config, image, rng = named(name), MemoryImage(), np.random.default_rng(0)
    rows, blocks = 200, 3
    scales = fixed_scale(rng.uniform(1e-3, 1e-2, blocks * config.dim), 4)
    operands = {
        "act": rng.bytes(rows * config.dim // 2),
        "wgt": rng.bytes(blocks * config.dim**2 // 2),
        "decode": rng.integers(-256, 256, 64).astype(np.int32).tobytes(),
        "encode": np.sort(rng.integers(-4000, 4000, 64)).astype(np.int32).tobytes(),
        "vec": scales.tobytes(),
    }
    program, result = serial_program, image.reserve(rows * config.dim // 2)
    for memory, data in operands.items():
        program.add(Load(memory=memory, rows=1, length=len(data) // 8, address=image.place(data)))
    program.add(Gemm(rows=rows, steps=1, blocks=blocks, zero=7, wgt_block=config.dim, acc_block=rows))
    program.add(Scale(memory="out", rows=rows, blocks=2, acc_block=rows, dst_block=rows))
    program.add(Logit(rows=60, blocks=blocks, acc_block=rows, lgt_row=blocks, mult=3, valid=5, first=1))
    program.add(Prob(rows=60, blocks=blocks, lgt_row=blocks, dst=300, dst_block=60))
    program.add(Gemm(rows=60, steps=blocks, blocks=1, act=300, act_stride=60, zero=7, wgt_stride=config.dim))
    program.add(Scale(memory="out", rows=60, blocks=1, dst=7))
    program.add(Store(memory="out", rows=1, length=rows * config.dim // 16, address=result))
    start = image.place(program.finish())
    memory = image.finish()
    before = bytes(memory)
    assert Machine(config, memory).run(start, len(program)).error == "none"
    for threads in (1, 2, 5):
        with open_device("fsim", config, memory_bytes=len(memory), threads=threads) as device:
            device.copy_in(0, before)
            assert device.run(start, len(program)).error == "none"
            assert device.copy_out(0, len(memory)) == memory
