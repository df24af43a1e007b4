"""The FPGA flow on one processing element: seconds instead of minutes, the same tools and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvm_ahcq.codegen.hardware import build
from tvm_ahcq.codegen.hardware.simulator import HERE, rtl_sources, verilator
from tvm_ahcq.codegen.hardware.synthesis import ecp5, yosys
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.errors import DeviceError


def synthesise(folder: Path, cells: tuple[str, ...]) -> dict[str, int]:
    sources = yosys.copy_sources(folder, cells)
    wanted = ("pkg", "ahcq_pe.", "multiply", "add_sub", "cells")
    files = [name for name in sources if any(part in name for part in wanted)]
    ecp5.synthesise_netlist(folder, [yosys.read_command(files, "ahcq_pe", {"SumBits": 17})], "ahcq_pe")
    return yosys.cells_of_netlist(folder / ecp5.NETLIST, "ahcq_pe")


def test_an_element_of_device_cells_is_smaller_and_goes_to_a_bitstream(tmp_path: Path) -> None:
    plain = synthesise(tmp_path, ())
    cells = synthesise(tmp_path, yosys.ECP5_CELLS)
    assert plain["MULT18X18D"] == 1
    assert "MULT18X18D" not in cells
    # two chains of 5 cells, one of 6, and the adder
    assert cells["CCU2C"] == 5 + 5 + 6 + 9
    assert cells["TRELLIS_FF"] == plain["TRELLIS_FF"]
    lines: list[str] = []
    routed = ecp5.place_and_route(tmp_path, 100.0, show=lines.append)
    assert routed.used["TRELLIS_FF"][0] == cells["TRELLIS_FF"]
    assert routed.fmax_mhz > 100
    assert any("Max frequency" in line for line in lines)
    assert (tmp_path / ecp5.PLACED).is_file()
    placed = ecp5.placed(tmp_path / ecp5.PLACE_LOG)
    assert placed.used == routed.used
    assert placed.placed_mhz > 100
    ecp5.bitstream(tmp_path)
    assert (tmp_path / "ahcq.bit").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["sim_4x4", "ecp5_16x16"])
def test_the_whole_accelerator_is_read_with_its_harness(tmp_path: Path, name: str) -> None:
    sources = yosys.copy_sources(tmp_path, yosys.ECP5_CELLS, ("ahcq_serial.sv",))
    read = yosys.read_command(sources, ecp5.TOP, named(name).parameters())
    yosys.synthesise(tmp_path, "read", [read, f"hierarchy -check -top {ecp5.TOP}", "stat"])
    log = (tmp_path / "read.log").read_text()
    assert "Build succeeded: 0 errors" in log


def test_what_a_tool_says_when_it_fails_is_shown(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no_such_module"):
        yosys.synthesise(tmp_path, "bad", ["hierarchy -top no_such_module"])


def test_the_command_refuses_an_unknown_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--config", "ecp5_1x1", "--out", str(tmp_path)]) == 1
    assert "ecp5_16x16" in capsys.readouterr().err


@pytest.mark.parametrize(("what", "file"), [([], "netlist.json"), (["placement"], "placed.json")])
def test_reuse_of_what_is_not_there_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: list[str], file: str
) -> None:
    assert build.main(["--config", "sim_4x4", "--reuse", *what, "--out", str(tmp_path)]) == 1
    assert f"{file} to reuse; run without --reuse first" in capsys.readouterr().err


def test_a_placement_that_did_not_end_has_no_clock(tmp_path: Path) -> None:
    log = tmp_path / ecp5.PLACE_LOG
    log.write_text("Info: \t TRELLIS_COMB:   10/  83640     0%\n")
    with pytest.raises(DeviceError, match="no placement that ended"):
        ecp5.placed(log)


def test_the_summary_has_every_resource_and_the_clock() -> None:
    record = {"config": "c", "target": "ecp5", "used": {"TRELLIS_FF": (5, 9)}, "fmax_mhz": 101.25, "asked_mhz": 120.0}
    assert build.summary(record).splitlines() == [
        "c on ecp5",
        "  TRELLIS_FF     5 of 9",
        "  clock          101.2 MHz (asked 120)",
    ]


def test_the_vivado_project_names_its_sources_and_says_that_it_is_untested(tmp_path: Path) -> None:
    assert build.main(["--config", "zu_64x64", "--target", "vivado", "--frequency", "250", "--out", str(tmp_path)]) == 0
    script = (tmp_path / "project.tcl").read_text()
    assert script.startswith("# Untested")
    assert "Dim=32'd64" in script
    names = [word for word in script.split() if word.startswith("rtl/") or word.startswith("[list")]
    assert all((tmp_path / name).is_file() for name in names if name.startswith("rtl/"))
    assert names[1] == "rtl/ahcq_isa_pkg.sv"
    assert "create_clock -period 4.000" in (tmp_path / "clock.xdc").read_text()


def test_the_top_for_zynq_fits_the_accelerator() -> None:
    files = [HERE / "lint" / "waivers.vlt", *rtl_sources(), HERE / "synthesis" / "ahcq_zynq.v"]
    parameters = [f"-G{name}={value}" for name, value in named("sim_4x4").parameters().items()]
    report = verilator("--lint-only", "--top-module", "ahcq_zynq", *parameters, *map(str, files))
    assert "%Warning" not in report
