"""Carry cells without constant zeros: what they compute, by Yosys' model of the cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tvm_ahcq.codegen.hardware.synthesis import tools, yosys
from tvm_ahcq.codegen.hardware.synthesis.constants import CARRY, fold_netlist, table_without

TABLES = (0x96AA, 0x7888, 0x000A, 0x6A3C)
"""Of the cells that the flow makes, and any other one."""


def instance(name: str, init: int, constants: dict[str, int]) -> str:
    """A cell with free inputs but for some constants, as Verilog."""
    pins = [f".{pin}({constants.get(pin, 'free[' + str(at) + ']')})" for at, pin in enumerate(
        [letter + half for half in "01" for letter in "ABCD"]
    )]  # fmt: skip
    outputs = f".CIN(cin), .S0(s_{name}[0]), .S1(s_{name}[1]), .COUT(s_{name}[2])"
    parameters = f'.INIT0({init}), .INIT1({init}), .INJECT1_0("NO"), .INJECT1_1("NO")'
    return f"wire [2:0] s_{name}; {CARRY} #({parameters}) {name} ({', '.join(pins)}, {outputs});"


@pytest.mark.skipif(not tools.available("yosys"), reason="needs the extra fpga")
def test_sums_and_carries_are_those_of_the_cell_with_zeros(tmp_path: Path) -> None:
    lines = ["module top(input cin, input [7:0] free);"]
    for table in TABLES:
        for place, letter in enumerate("ABCD"):
            name = f"t{table:x}{letter}"
            pins = (letter + "0", letter + "1")
            lines.append(instance(f"{name}_zero", table, dict.fromkeys(pins, 0)))
            lines.append(instance(f"{name}_fold", table_without(table, place), dict.fromkeys(pins, 1)))
            lines.append(f"always @* assert (s_{name}_zero == s_{name}_fold);")
    (tmp_path / "top.v").write_text("\n".join([*lines, "endmodule\n"]))
    commands = [
        "read_verilog -overwrite -sv +/lattice/cells_sim_ecp5.v", "read_verilog -sv -formal top.v",
        "hierarchy -top top", "proc", "flatten", "chformal -lower", "sat -verify -prove-asserts top",
    ]  # fmt: skip
    yosys.synthesise(tmp_path, "prove", commands)


def test_all_zeros_of_a_netlist_are_taken_and_nothing_else(tmp_path: Path) -> None:
    def cell(kind: str) -> dict[str, object]:
        return {
            "type": kind, "parameters": {"INIT0": f"{0x96AA:016b}", "INIT1": f"{0x96AA:016b}"},
            "connections": {"A0": [2], "B0": [3], "C0": ["0"], "D0": ["1"], "A1": ["0"], "B1": [4],
                            "C1": ["0"], "CIN": ["0"]},
        }  # fmt: skip

    path = tmp_path / "netlist.json"
    netlist = {"modules": {"top": {"cells": {"carry": cell(CARRY), "other": cell("LUT4")}}}}
    path.write_text(json.dumps(netlist))
    assert fold_netlist(path, "top") == 3
    found = json.loads(path.read_text())["modules"]["top"]["cells"]
    assert found["other"] == netlist["modules"]["top"]["cells"]["other"]
    assert found["carry"]["connections"] == {
        "A0": [2], "B0": [3], "C0": ["1"], "D0": ["1"], "A1": ["1"], "B1": [4], "C1": ["1"], "CIN": ["0"],
    }  # fmt: skip
    assert int(found["carry"]["parameters"]["INIT0"], 2) == table_without(0x96AA, 2)
    assert list(tmp_path.iterdir()) == [path]
