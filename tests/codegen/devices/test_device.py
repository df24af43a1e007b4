"""What every accelerator does, through the one interface: functional simulator and Verilated RTL."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tvm_ahcq.codegen.devices.device import Device, Timing, open_device, relocate
from tvm_ahcq.codegen.hardware import cosim as agreement
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.encoding import decode, encode
from tvm_ahcq.codegen.isa.generated.isa import Finish, Gemm, Load, Store
from tvm_ahcq.codegen.lower.attention.operator import lower_attention
from tvm_ahcq.codegen.lower.standalone import packed_inputs, standalone
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams

CONFIG = named("sim_4x4")
BACKENDS = ["fsim", "rtl"]
LOAD = {"memory": "act", "rows": 1, "length": 1}
FINISH = encode(Finish())


@pytest.fixture(params=BACKENDS)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with open_device(request.param, CONFIG, memory_bytes=1 << 16) as opened:
        opened.write_register("watchdog", agreement.WATCHDOG)
        yield opened


def run(device: Device, *instructions: bytes) -> tuple[str, int]:
    device.copy_in(0, b"".join(instructions))
    result = device.run(0, len(instructions))
    return result.error, result.error_index


def test_identification_says_what_was_built(device: Device) -> None:
    assert device.read_register("id").to_bytes(4, "big") == b"AHCQ"
    assert device.read_register("config_hash") == CONFIG.hash
    assert device.read_register("version") == 2


def test_interrupt_status_is_set_at_the_end_and_cleared_by_writing_one(device: Device) -> None:
    assert device.read_register("irq_status") == 0
    run(device, FINISH)
    assert device.read_register("irq_status") == 1
    device.write_register("irq_status", 1)
    assert device.read_register("irq_status") == 0


def test_after_an_error_nothing_starts_until_a_soft_reset(device: Device) -> None:
    assert run(device, encode(Load(**LOAD)), bytes(32)) == ("illegal_opcode", 1)
    with pytest.raises(DeviceError, match="reset"):
        device.submit(0, 1)
    assert device.soft_reset()
    assert run(device, encode(Load(**LOAD)), FINISH) == ("none", 1)


def test_soft_reset_ends_a_deadlock_without_a_watchdog(device: Device) -> None:
    device.write_register("watchdog", 0)
    device.copy_in(0, encode(Gemm(rows=1, steps=1, blocks=1), pop=["load"]) + FINISH)
    device.submit(0, 2)
    assert not device.wait(0.05)
    assert device.soft_reset()
    assert run(device, FINISH) == ("none", 0)


@pytest.mark.parametrize(
    ("error", "bad"),
    [
        ("bus_read", encode(Load(**LOAD, address=0x8000))),
        ("bus_write", encode(Store(memory="out", rows=1, length=1, address=0x8000))),
    ],
)
def test_bus_errors_end_the_program_and_a_soft_reset_recovers(device: Device, error: str, bad: bytes) -> None:
    device.set_faults(0x8000, 0x8008)
    assert run(device, bad, FINISH)[0] == error
    device.set_faults(0, 0)
    assert device.soft_reset()
    assert run(device, bad, FINISH) == ("none", 1)


def test_a_bus_error_of_an_instruction_is_its_own(device: Device) -> None:
    device.set_faults(32, 40)
    assert run(device, encode(Load(**LOAD)), FINISH) == ("bus_fetch", 1)


def test_programs_follow_each_other_and_scratchpads_stay(device: Device) -> None:
    data = bytes(range(16))
    device.copy_in(0x1000, data)
    vec = {"memory": "vec", "rows": 1, "length": 2}
    assert run(device, encode(Load(**vec, address=0x1000)), FINISH) == ("none", 1)
    assert run(device, encode(Store(**vec, address=0x2000)), FINISH) == ("none", 1)
    assert device.copy_out(0x2000, 16) == data


def test_allocation_refuses_more_than_there_is(device: Device) -> None:
    assert device.allocate(100) == 0
    assert device.allocate(64) == 128
    with pytest.raises(DeviceError, match="free"):
        device.allocate(1 << 16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slow_memory_costs_cycles_and_nothing_else(backend: str) -> None:
    load = encode(Load(memory="act", rows=1, length=512))
    cycles = []
    for timing in (Timing(), Timing(bytes_per_cycle=1)):
        with open_device(backend, CONFIG, memory_bytes=1 << 16, timing=timing) as device:
            assert run(device, load, FINISH) == ("none", 1)
            cycles.append(device.counters()["cycles"])
    # a chunk is four words of this array, one a cycle; the slow memory gives a chunk in eight
    assert 4 * 512 < cycles[0] < 4 * 512 + 200
    assert 8 * 512 <= cycles[1] < 8 * 512 + 300


def test_streamed_attention_keeps_the_array_busy_and_has_the_models_memory(device: Device) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (UniformParams(bits=4, scale=0.2, zero_point=8) for _ in range(3))
    probs = RowRelativeParams(bits=4, alpha=20.0)
    constants, _, _ = attention_constants(AttentionQuantizers(q, k, v, probs), scale=0.25, head_dim=16)
    operator = lower_attention(CONFIG, (1, 128, 128, 16), constants)
    program = standalone(operator.memory, operator.program)
    codes = rng.integers(0, 16, (3, 128, 16)).astype(np.uint8)
    memory = program.image(packed_inputs(operator, *codes), 1 << 16)
    device.copy_in(0, memory)
    result = device.run(program.start, program.length)
    assert result == Machine(CONFIG, memory).run(program.start, program.length)
    assert device.copy_out(0, len(memory)) == memory
    counters = device.counters()
    # one head: the first and the last tile have nothing to overlap with
    assert counters["array_busy"] / counters["cycles"] > 0.8


def test_what_was_allocated_is_given_back_from_an_address_on(device: Device) -> None:
    device.allocate(64)
    second = device.allocate(640)
    device.allocate(64)
    device.release(second)
    assert device.allocate(1) == second
    with pytest.raises(DeviceError, match="nothing was allocated at address 4096"):
        device.release(4096)


def test_copies_outside_of_the_memory_are_refused(device: Device) -> None:
    assert device.memory_bytes == 1 << 16
    with pytest.raises(DeviceError, match="outside of the memory"):
        device.copy_in((1 << 16) - 1, b"ab")
    with pytest.raises(DeviceError, match="outside of the memory"):
        device.copy_out(1 << 40, 1)


def test_a_program_for_another_configuration_is_refused_with_both_names(device: Device) -> None:
    device.require_config(CONFIG)
    other = named("ecp5_16x16")
    both = rf"{CONFIG.hash:#010x} \({CONFIG.name}\).*{other.hash:#010x} \(ecp5_16x16\)"
    with pytest.raises(DeviceError, match=both):
        device.require_config(other)


def test_a_relocated_program_does_the_same_elsewhere(device: Device) -> None:
    data = bytes(range(1, 17))
    vec = {"memory": "vec", "rows": 1, "length": 2}
    program = b"".join(
        [
            encode(Load(**vec), push=["store"]),
            encode(Store(**vec, address=64), pop=["load"]),
            FINISH,
        ]
    )
    at = device.allocate(4096) + 1024
    moved = relocate(program, at)
    assert [decode(moved[32 * i : 32 * i + 32]).instruction for i in range(3)] == [
        Load(**vec, address=at),
        Store(**vec, address=at + 64),
        Finish(),
    ]
    device.copy_in(at, data)
    device.copy_in(at + 128, moved)
    assert device.run(at + 128, 3).error == "none"
    assert device.copy_out(at + 64, 16) == data


def test_a_closed_device_says_so() -> None:
    device = open_device("fsim", CONFIG, memory_bytes=4096)
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.allocate(1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "'fsim', 'rtl', 'board"),
        ("fsim:x", "'fsim', 'rtl', 'board"),
        ("board:/dev/uio0", "board:/dev/uio0,/dev/udmabuf0"),
        ("board:/nowhere/uio0,/nowhere/udmabuf0", "/nowhere/uio0 cannot be opened: No such file"),
    ],
)
def test_a_name_that_opens_nothing_is_explained(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        open_device(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "no accelerator is called 'tpu'; there are fsim, rtl, board and rpc"),
        ("fsim:big", "no accelerator configuration is called 'big'; there are sim_4x4"),
        ("fsim:sim_4x4,speed=3", "no option 'speed'"),
        ("fsim:sim_4x4,memory=lots", "memory is 'lots'; expected a whole number"),
        ("fsim:sim_4x4,config=sim_4x4", "'config' is given twice"),
        ("fsim:sim_4x4,kernels=mmx", "kernels 'mmx'"),
        ("rtl:", "needs the library"),
        ("rtl:/nowhere/lib.so", "cannot be loaded"),
    ],
)
def test_a_wrong_option_is_named(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        Device(name)
