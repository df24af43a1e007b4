"""The Verilated RTL against the numpy model: memory, error codes, counters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tvm_ahcq.codegen.device import Device, Timing, open_device
from tvm_ahcq.codegen.hardware import agreement
from tvm_ahcq.codegen.hardware.attention import Head, attention_program
from tvm_ahcq.codegen.hardware.attention_tiles import Heads, heads_program
from tvm_ahcq.codegen.hardware.config import named
from tvm_ahcq.codegen.hardware.image import MemoryImage, instruction_count
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.hardware.program import instruction
from tvm_ahcq.codegen.hardware.random_program import FAULTS, random_program
from tvm_ahcq.codegen.hardware.simulator import lint
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers import reference
from tvm_ahcq.quantizers.lnq import LnqParams
from tvm_ahcq.quantizers.log_attention import log_attention_constants
from tvm_ahcq.quantizers.uniform import UniformParams

CONFIG = named("sim_4x4")
LOAD = {"memory": "act", "rows": 1, "length": 1}
FINISH = instruction("finish")


@pytest.fixture
def device() -> Iterator[Device]:
    with open_device("rtl", CONFIG, memory_bytes=1 << 16) as opened:
        opened.write_register("watchdog", agreement.WATCHDOG)
        yield opened


def run(device: Device, *instructions: bytes) -> tuple[str, int]:
    device.copy_in(0, b"".join(instructions))
    result = device.run(0, len(instructions))
    return result.error, result.error_index


def test_lint_is_clean() -> None:
    assert "%Warning" not in lint(CONFIG)


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_random_programs_give_the_models_memory_and_counters(seed: int) -> None:
    for offset in range(10):
        assert agreement.disagreement(CONFIG, seed + offset) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_random_programs_with_a_fault_end_as_the_model_says(fault: str) -> None:
    for seed in range(12):
        assert agreement.disagreement(CONFIG, 5000 + seed, fault) is None


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="needs perl, which is not on PATH"):
        lint(CONFIG)


def test_random_programs_use_every_instruction_and_change_memory() -> None:
    program = random_program(CONFIG, 3)
    names = {
        program.memory[program.start + 32 * index] & 15 for seed in range(3) for index in range(program.length)
    }  # fmt: skip
    assert names == {1, 2, 3, 4, 5, 6, 7, 15}


def test_attention_on_the_rtl_has_the_references_integers(device: Device) -> None:
    rng = np.random.default_rng(7)
    q, k, v = (UniformParams(bits=4, scale=0.31, zero_point=zero) for zero in (8, 6, 9))
    constants, rel_h, rel_w = log_attention_constants(
        q, k, v, LnqParams(bits=4, alpha=20.0, scale=0.7), scale=8**-0.5, head_dim=8,
        rel_h=rng.normal(size=(9, 8)), rel_w=rng.normal(size=(13, 8)),
    )  # fmt: skip
    head = Head(*rng.integers(0, 16, (3, 35, 8)).astype(np.uint8), constants, (5, 7), rel_h, rel_w)
    image = MemoryImage()
    program, address = attention_program(CONFIG, image, head)
    start = image.place(program)
    device.copy_in(0, image.finish())
    assert device.run(start, instruction_count(program)).error == "none"
    operands = reference.attention_operands(head.q, head.k, constants, rel_h, rel_w)
    want = operands.astype(np.int64) @ (head.v.astype(np.int64) - constants.v_zero)
    sums = np.frombuffer(device.copy_out(address, want.size * 4), np.int32).reshape(2, -1, 4)
    np.testing.assert_array_equal(np.concatenate(list(sums), -1), want)


def test_identification_says_what_was_built(device: Device) -> None:
    assert device.read_register("id").to_bytes(4, "big") == b"AHCQ"
    assert device.read_register("config_hash") == CONFIG.hash
    assert device.read_register("version") == 1


def test_interrupt_status_is_set_at_the_end_and_cleared_by_writing_one(device: Device) -> None:
    assert device.read_register("irq_status") == 0
    run(device, FINISH)
    assert device.read_register("irq_status") == 1
    device.write_register("irq_status", 1)
    assert device.read_register("irq_status") == 0


def test_after_an_error_nothing_starts_until_a_soft_reset(device: Device) -> None:
    assert run(device, instruction("load", **LOAD), bytes(32)) == ("illegal_opcode", 1)
    with pytest.raises(DeviceError, match="reset"):
        device.submit(0, 1)
    assert device.soft_reset()
    assert run(device, instruction("load", **LOAD), FINISH) == ("none", 1)


def test_soft_reset_ends_a_deadlock_without_a_watchdog(device: Device) -> None:
    device.write_register("watchdog", 0)
    device.copy_in(0, instruction("gemm", rows=1, steps=1, blocks=1, pop=["load"]) + FINISH)
    device.submit(0, 2)
    assert not device.wait(0.05)
    assert device.soft_reset()
    assert run(device, FINISH) == ("none", 0)


@pytest.mark.parametrize(
    ("error", "bad"),
    [
        ("bus_read", instruction("load", **LOAD, address=0x8000)),
        ("bus_write", instruction("store", memory="out", rows=1, length=1, address=0x8000)),
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
    assert run(device, instruction("load", **LOAD), FINISH) == ("bus_fetch", 1)


def test_programs_follow_each_other_and_scratchpads_stay(device: Device) -> None:
    data = bytes(range(16))
    device.copy_in(0x1000, data)
    vec = {"memory": "vec", "rows": 1, "length": 2}
    assert run(device, instruction("load", **vec, address=0x1000), FINISH) == ("none", 1)
    assert run(device, instruction("store", **vec, address=0x2000), FINISH) == ("none", 1)
    assert device.copy_out(0x2000, 16) == data


def test_allocation_refuses_more_than_there_is(device: Device) -> None:
    assert device.allocate(100) == 0
    assert device.allocate(64) == 128
    with pytest.raises(DeviceError, match="free"):
        device.allocate(1 << 16)


def test_a_slow_memory_costs_cycles_and_nothing_else() -> None:
    load = instruction("load", memory="act", rows=1, length=512)
    cycles = []
    for timing in (Timing(), Timing(bytes_per_cycle=1)):
        with open_device("rtl", CONFIG, memory_bytes=1 << 16, timing=timing) as device:
            assert run(device, load, FINISH) == ("none", 1)
            cycles.append(device.counters()["cycles"])
    # a chunk is four words of this array, one a cycle; the slow memory gives a chunk in eight
    assert 4 * 512 < cycles[0] < 4 * 512 + 200
    assert 8 * 512 <= cycles[1] < 8 * 512 + 300


def test_tiled_attention_keeps_the_array_busy_and_has_the_models_memory(device: Device) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (UniformParams(bits=4, scale=0.2, zero_point=8) for _ in range(3))
    probs = LnqParams(bits=4, alpha=20.0, scale=0.7)
    constants, _, _ = log_attention_constants(q, k, v, probs, scale=0.25, head_dim=16)
    image = MemoryImage()
    heads = Heads(*rng.integers(0, 16, (3, 1, 128, 16)).astype(np.uint8), constants)
    program, _ = heads_program(CONFIG, image, heads, rows=16)
    start, length = image.place(program), instruction_count(program)
    memory = image.finish(1 << 16)
    device.copy_in(0, memory)
    found = device.run(start, length)
    assert found == Machine(CONFIG, memory).run(start, length)
    assert device.copy_out(0, len(memory)) == memory
    counters = device.counters()
    # one head: the first and the last tile have nothing to overlap with
    assert counters["array_busy"] / counters["cycles"] > 0.8
