"""The Verilated RTL against the numpy model: memory, error codes, counters."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.hardware import cosim as agreement
from tvm_ahcq.codegen.hardware.fuzz import FAULTS, random_program
from tvm_ahcq.codegen.hardware.simulator import lint
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.errors import DeviceError

CONFIG = named("sim_4x4")
WIDE = Config("wide", 32, 4, 2, 256, 256, 256, 128, 128, 256, 32, 1)
"""A bus of two chunks; few lanes and words, so that it is soon built."""


def test_lint_is_clean() -> None:
    assert "%Warning" not in lint(CONFIG)


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_random_programs_give_the_models_memory_and_counters(seed: int) -> None:
    for offset in range(10):
        assert agreement.find_mismatch(CONFIG, seed + offset) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_random_programs_with_a_fault_end_as_the_model_says(fault: str) -> None:
    for seed in range(12):
        assert agreement.find_mismatch(CONFIG, 5000 + seed, fault) is None


@pytest.mark.parametrize("error", agreement.BUS_ERRORS)
def test_bus_errors_of_random_programs_end_them_with_their_code(error: str) -> None:
    for seed in range(10):
        assert agreement.find_bus_mismatch(CONFIG, seed, error) is None


def test_a_bus_of_several_chunks_changes_nothing_but_alignment() -> None:
    for seed in range(12):
        for fault in ("none", *FAULTS):
            assert agreement.find_mismatch(WIDE, seed, fault, ["rtl"]) is None
        for error in agreement.BUS_ERRORS:
            assert agreement.find_bus_mismatch(WIDE, seed, error, ["rtl"]) is None


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="needs perl, which is not on PATH"):
        lint(CONFIG)


def test_random_programs_use_every_instruction_and_change_memory() -> None:
    program = random_program(CONFIG, 3)
    names = {program.memory[program.start + 32 * index] & 15 for seed in range(3) for index in range(program.length)}
    assert names == {1, 2, 3, 4, 5, 7, 15}
