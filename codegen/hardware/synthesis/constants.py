"""Inputs of carry cells that are 0 all the time become 1, and their tables do as if they were 0 still.

A cell of the ECP5 reads 1 where nothing is connected, but a 0 has to be brought to it: the adders of a whole design
then hang on one wire that goes everywhere, in the way of all others. Yosys leaves thousands of such inputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CARRY = "CCU2C"
_INPUTS = "ABCD"


def table_without(init: int, place: int) -> int:
    """A table of 16 entries that does for any value of an input what `init` does where that input is 0.

    Parameters
    ----------
    init : int
        16 bits; entry i is the output where input `place` is bit `place` of i.
    place : int
        0 to 3, for inputs A to D.

    Returns
    -------
    int
        The table. The carry of a cell is made of its first four entries in the same way, and so remains right.
    """
    return sum((init >> (entry & ~(1 << place)) & 1) << entry for entry in range(16))


def fold_zeros(cell: dict[str, Any]) -> int:
    """Takes the constant zeros from a carry cell of a netlist; returns how many."""
    found = 0
    for half in "01":
        for place, name in enumerate(_INPUTS):
            if cell["connections"].get(name + half) == ["0"]:
                init = cell["parameters"]["INIT" + half]
                cell["parameters"]["INIT" + half] = f"{table_without(int(init, 2), place):016b}"
                cell["connections"][name + half] = ["1"]
                found += 1
    return found


def fold_netlist(path: Path, top: str) -> int:
    """:func:`fold_zeros` for all carry cells of a file that ``write_json`` wrote, in place; returns how many zeros."""
    netlist = json.loads(path.read_text())
    cells = netlist["modules"][top]["cells"].values()
    found = sum(fold_zeros(cell) for cell in cells if cell["type"] == CARRY)
    written = path.with_suffix(".folded")
    written.write_text(json.dumps(netlist))
    written.replace(path)
    return found
