"""What ``tvm-ahcq devices`` finds out: every device that works passes its test, every one that does not fails it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.codegen.devices.device import Device, open_device
from tvm_ahcq.codegen.devices.device_check import (
    FAILED,
    NOT_TESTED,
    PASSED,
    Requirement,
    boards,
    check_devices,
    tools,
    versions,
)
from tvm_ahcq.codegen.devices.golden_program import golden_program, self_test
from tvm_ahcq.codegen.devices.mock_board import MockBoard
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.generated.isa import CONFIGS
from tvm_ahcq.errors import DeviceError

CONFIG = named("sim_4x4")
NEED = Requirement("sim_4x4", CONFIG.hash, 5000)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_functional_simulator_passes_in_every_configuration(name):
    config = named(name)
    with open_device("fsim", config, memory_bytes=1 << 20) as device:
        at = device.allocate(640)
        device.copy_in(at, b"kept")
        self_test(device, config)  # behind what is there: its addresses are relocated
        assert device.copy_out(at, 4) == b"kept"
        assert device.allocate(1) == 640  # and its own memory is given back


def test_the_known_program_uses_every_unit():
    counters = golden_program(CONFIG).result.counters
    assert all(counters[f"{unit}_count"] > 0 for unit in ("load", "gemm", "vector", "store"))
    assert golden_program(CONFIG).before != golden_program(CONFIG).after


class OneBitWrong:
    """A device behind which one bit of what is read is wrong."""

    def __init__(self, device, address: int) -> None:
        self._device, self._address = device, address

    def __getattr__(self, name: str):
        return getattr(self._device, name)

    def copy_out(self, address: int, size: int) -> bytes:
        data = bytearray(self._device.copy_out(address, size))
        data[self._address - address] ^= 4
        return bytes(data)


def test_one_wrong_bit_fails():
    known = golden_program(CONFIG)
    result = next(i for i, (a, b) in enumerate(zip(known.before, known.after, strict=True)) if a != b)
    with open_device("fsim", CONFIG) as device, pytest.raises(DeviceError, match=r"1 of \d+ bytes differ"):
        self_test(OneBitWrong(device, result), CONFIG)


def test_a_hanging_device_and_another_configuration_fail():
    with Device("fsim:sim_4x4,hang=1") as device, pytest.raises(DeviceError, match=r"still runs after 0\.1 s"):
        self_test(device, CONFIG, 0.1)
    with open_device("fsim", "ecp5_16x16") as device, pytest.raises(DeviceError, match="has configuration"):
        self_test(device, CONFIG)


def test_all_simulators_are_examined_and_boards_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where nothing was built yet
    found = list(check_devices())
    assert [each.config for each in found if each.device == "fsim"] == list(CONFIGS)
    assert all(
        each.test == PASSED and each.hash == CONFIGS[each.config]["hash"] for each in found if each.device == "fsim"
    )
    assert [each.config for each in found if each.device == "rtl"] == list(CONFIGS)
    assert [(each.test, each.hash) for each in found if each.device == "board"] == [(NOT_TESTED, None)]


def test_a_simulation_that_is_not_in_the_cache_is_not_built_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rtl = [each for each in check_devices(configs=["sim_4x4"]) if each.device == "rtl"]
    assert [each.test for each in rtl] == [NOT_TESTED]
    assert "built" in rtl[0].detail and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_simulated_rtl_is_built_if_it_is_named_and_passes():
    (found,) = check_devices(["rtl"], NEED)
    assert (found.test, found.hash, found.bundle) == (PASSED, CONFIG.hash, "runs it"), found.detail


def test_a_board_is_asked_for_its_configuration_and_compared_with_the_bundle(tmp_path):
    with MockBoard(tmp_path, CONFIG, 1 << 16) as board:
        (found,) = check_devices([board.device_name], NEED)
        assert (found.test, found.config, found.hash, found.bundle) == (PASSED, "sim_4x4", CONFIG.hash, "runs it")
        assert "65536 bytes" in found.detail
        cases = {
            "no: it needs 100000 bytes of memory": replace(NEED, memory_bytes=100_000),
            "no: made for ecp5_16x16": Requirement("ecp5_16x16", CONFIGS["ecp5_16x16"]["hash"], 5000),
            "no: made for sim_4x4 of another version, 0x00000001; compile it again": replace(NEED, hash=1),
        }
        for expected, need in cases.items():
            (found,) = check_devices([board.device_name], need)
            assert (found.test, found.bundle) == (PASSED, expected)


def test_a_board_without_our_accelerator_fails_with_the_reason(tmp_path):
    (found,) = check_devices(["board:/dev/none,/dev/none"])
    assert found.test == FAILED and "/dev/none cannot be opened" in found.detail
    with MockBoard(tmp_path, CONFIG, 1 << 16) as board:
        board.write("config_hash", 5)
        (found,) = check_devices([board.device_name])
        assert found.test == FAILED and "0x00000005 is none of this package's" in found.detail
        board.write("id", 0)
        (found,) = check_devices([board.device_name])
        assert found.test == FAILED and "no accelerator answers" in found.detail


def test_a_board_that_does_not_end_fails_in_time(tmp_path):
    with MockBoard(tmp_path, CONFIG, 1 << 16, seconds=1) as board:
        (found,) = check_devices([board.device_name], seconds=0.1)
    assert found.test == FAILED and "still runs after 0.1 s" in found.detail


def test_devices_of_the_kernel_are_listed_with_what_it_says(tmp_path):
    said = {"uio/uio0/name": "ahcq", "uio/uio1/name": "other", "u-dma-buf/udmabuf0/size": "67108864"}
    for path, text in said.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text + "\n")
    assert boards(tmp_path) == (["/dev/uio0 (ahcq)", "/dev/uio1 (other)"], ["/dev/udmabuf0 (67108864 bytes)"])
    assert boards(tmp_path / "nothing") == ([], [])


def test_versions_and_tools_are_told():
    assert versions()["tvm-ahcq"] == ahcq.__version__ and versions()["runtime library"] == "loaded"
    assert set(tools()) == {"verilator", "g++", "perl", "make"}
