"""``tvm-ahcq devices`` and ``serve``: what they print, and their exit status."""

from __future__ import annotations

import json

import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.cli.main import main
from tvm_ahcq.codegen.devices.mock_board import MockBoard
from tvm_ahcq.codegen.isa.config import named


def test_a_table_with_versions_tools_and_a_line_for_each_device(capsys):
    assert main(["devices", "--device", "fsim", "--config", "sim_4x4", "--config", "ecp5_16x16"]) == 0
    printed = capsys.readouterr().out
    assert f"tvm-ahcq: {ahcq.__version__}" in printed and "verilator:" in printed
    lines = [line.split() for line in printed.splitlines() if line.split()[:1] == ["fsim"]]
    assert [line[:4] for line in lines] == [
        ["fsim", name, f"{named(name).hash:#010x}", "passed"] for name in ("sim_4x4", "ecp5_16x16")
    ]


def test_a_bundle_is_compared_with_every_device(accelerated, capsys):
    assert main(["devices", str(accelerated.both), "--device", "fsim", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bundle"]["config"] == "sim_4x4" and told["bundle"]["memory_bytes"] > 0
    (device,) = told["devices"]
    assert (device["device"], device["config"], device["test"], device["bundle"]) == (
        "fsim",
        "sim_4x4",
        "passed",
        "runs it",
    )
    assert main(["devices", str(accelerated.host)]) == 2
    assert "runs on the host alone" in capsys.readouterr().err


def test_no_device_for_the_bundle_is_an_error(accelerated, tmp_path, capsys):
    with MockBoard(tmp_path, named("ecp5_16x16"), 1 << 16) as board:
        assert main(["devices", str(accelerated.both), "--device", board.device_name]) == 2
    told = capsys.readouterr()
    assert "passed" in told.out
    assert "no device that was tested runs the bundle" in told.err and "made for sim_4x4" in told.err


def test_a_device_that_does_not_work_is_an_error_behind_the_table(capsys):
    assert main(["devices", "--device", "fsim", "--config", "sim_4x4", "--device", "board:/dev/none,/dev/none"]) == 2
    told = capsys.readouterr()
    assert "passed" in told.out and "failed" in told.out
    assert "1 of 2 devices do not work: board:/dev/none,/dev/none" in told.err and len(told.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("devices", "--device", "gpu"), "No accelerator is called 'gpu'"),
        (("devices", "--device", "rpc:9090/fsim"), "expected rpc:HOST:PORT/DEVICE"),
        (("devices", "--config", "abacus"), "No accelerator configuration is called 'abacus'"),
        (("serve", "--port", "x"), "'x' is not a port"),
        (("serve", "--host", "192.0.2.1", "--port", "0"), "192.0.2.1:0 cannot be served on"),
        (("serve", "--device", "rpc:127.0.0.1:9090/fsim"), "is on another machine already"),
        (("serve", "--device", "board:/dev/none,/dev/none"), "/dev/none cannot be opened"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(arguments, message, capsys):
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    assert message in told.err and len(told.err.splitlines()) == 1
