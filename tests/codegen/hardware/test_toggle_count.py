"""Toggles of a binary counter, whose number is known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tvm_ahcq.codegen.hardware.simulator import counting_program
from tvm_ahcq.codegen.hardware.toggle_count import Register, flip_flops, read_saif, registers
from tvm_ahcq.errors import DeviceError

HERE = Path(__file__).resolve().parent
SOURCES, BITS = [HERE / "counter.sv"], 5
PARAMETERS = [f"-GBits={BITS}"]


@pytest.fixture(scope="module")
def program() -> Path:
    return counting_program("test-counter", "counter", SOURCES, HERE / "counter.cc", PARAMETERS)


def count(program: Path, folder: Path, cycles: int) -> dict[str, Register]:
    """Flip-flops of so many cycles, by path."""
    path = folder / "counter.saif"
    subprocess.run([str(program), str(path), str(cycles)], check=True)
    found, missing = registers(path, "counter", flip_flops("counter", SOURCES, PARAMETERS)[0])
    assert not missing
    return {each.path: each for each in found}


def test_flip_flops_are_what_clocked_blocks_write_but_for_memories() -> None:
    found, memories = flip_flops("counter", SOURCES, PARAMETERS)
    assert found == {
        "count_o": "counter",
        "gen_copy[0].u_delayed.stages_q": "delayed",
        "gen_copy[1].u_delayed.stages_q": "delayed",
    }
    assert memories == ["mem"]


def test_a_full_period_of_a_counter_toggles_its_bits_as_often_as_is_known(program: Path, tmp_path: Path) -> None:
    found = count(program, tmp_path, 2**BITS)
    # bit i changes every 2**i cycles
    assert found["count_o"] == Register("count_o", "counter", BITS, 2 ** (BITS + 1) - 2)


def test_each_stage_and_each_instance_is_counted(program: Path, tmp_path: Path) -> None:
    period, cycles = 2**BITS, 3 * 2**BITS + 2
    found = count(program, tmp_path, cycles)
    changes = [bin(value % period ^ (value + 1) % period).count("1") for value in range(cycles)]
    late = sum(changes[: cycles - 1]) + sum(changes[: cycles - 2])
    assert found["gen_copy[0].u_delayed.stages_q"] == Register(
        "gen_copy[0].u_delayed.stages_q", "delayed", 2 * BITS, late
    )
    # the complement: both stages rise from 0 to all ones once more
    assert found["gen_copy[1].u_delayed.stages_q"].toggles == late + 2 * BITS


def test_a_file_without_the_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.saif").write_text("(SAIFILE\n(INSTANCE other\n)\n)\n")
    with pytest.raises(DeviceError, match="no signals of counter"):
        read_saif(tmp_path / "other.saif", "counter")
