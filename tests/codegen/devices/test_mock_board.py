"""The board driver against files that stand for its registers and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.devices.mock_board import MockBoard
from tvm_ahcq.codegen.hardware.fuzz import random_program
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.encoding import encode
from tvm_ahcq.codegen.isa.generated.isa import Finish, Load, Store
from tvm_ahcq.errors import DeviceError

CONFIG = named("sim_4x4")
MEMORY = 1 << 16
VEC = {"memory": "vec", "rows": 1, "length": 2}
FINISH = encode(Finish())


@pytest.fixture
def board(tmp_path: Path) -> Iterator[MockBoard]:
    with MockBoard(tmp_path, CONFIG, MEMORY) as opened:
        yield opened


@pytest.mark.parametrize("seed", range(5))
def test_random_programs_run_through_the_driver(board: MockBoard, seed: int) -> None:
    program = random_program(CONFIG, seed)
    memory = program.memory + bytes(MEMORY - len(program.memory))
    wanted_memory = bytearray(memory)
    wanted = Machine(CONFIG, wanted_memory).run(program.start, program.length)
    with open_device(board.device_name, CONFIG) as device:
        device.copy_in(0, memory)
        assert device.run(program.start, program.length) == wanted
        assert device.copy_out(0, MEMORY) == wanted_memory
        assert device.memory_bytes == MEMORY


def test_programs_follow_each_other_on_the_same_scratchpads(board: MockBoard) -> None:
    data = bytes(range(16))
    with open_device(board.device_name) as device:
        device.copy_in(0, data + bytes(48) + encode(Load(**VEC)) + FINISH)
        device.copy_in(256, encode(Store(**VEC, address=512)) + FINISH)
        assert device.run(64, 2).error == "none"
        assert device.run(256, 2).error == "none"
        assert device.copy_out(512, 16) == data


def test_the_driver_gives_all_memory_as_the_window(board: MockBoard) -> None:
    with open_device(board.device_name) as device:
        device.copy_in(0, FINISH)
        device.run(0, 1)
    assert (board.read("memory_base"), board.read("memory_limit"), board.read("program_length")) == (0, MEMORY, 1)


def test_an_error_stays_until_a_soft_reset(board: MockBoard) -> None:
    with open_device(board.device_name) as device:
        device.copy_in(0, bytes(32) + FINISH)
        assert device.run(0, 2).error == "illegal_opcode"
        with pytest.raises(DeviceError, match="reset"):
            device.submit(32, 1)
        assert device.soft_reset()
        assert device.run(32, 1).error == "none"


def test_a_wait_ends_in_time_while_the_board_is_busy(tmp_path: Path) -> None:
    with MockBoard(tmp_path, CONFIG, MEMORY, seconds=0.3) as board, open_device(board.device_name) as device:
        device.copy_in(0, FINISH)
        device.submit(0, 1)
        assert not device.wait(0.02)
        assert device.wait(30.0)


def test_another_configuration_on_the_board_is_refused(board: MockBoard) -> None:
    with pytest.raises(DeviceError, match=r"has configuration 0x573a3b63 \(sim_4x4\)"):
        open_device(board.device_name, "ecp5_16x16")


def test_registers_of_something_else_and_of_another_version_are_refused(board: MockBoard) -> None:
    board.write("version", 9)
    with pytest.raises(DeviceError, match="version 9, this driver is for version 2"):
        open_device(board.device_name)
    board.write("id", 0)
    with pytest.raises(DeviceError, match="no accelerator answers"):
        open_device(board.device_name)


def test_a_register_file_that_is_too_small_is_refused(board: MockBoard) -> None:
    small = board.registers.with_name("small")
    small.write_bytes(bytes(64))
    with pytest.raises(DeviceError, match="cannot be mapped"):
        open_device(f"board:{small},{board.memory}")


def test_bus_errors_cannot_be_asked_of_a_board(board: MockBoard) -> None:
    with open_device(board.device_name) as device, pytest.raises(DeviceError, match="only a simulated memory"):
        device.set_faults(0, 8)
