"""Yosys scripts: the RTL read through its slang frontend, with or without modules made of a device's cells."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from tvm_ahcq.codegen.hardware.simulator import rtl_sources

from . import tools

HERE = Path(__file__).resolve().parent
RTL = "rtl"
"""Folder of the copied sources inside the working folder."""
ECP5_CELLS = ("ecp5_cells.sv", "ecp5_multiply.sv", "ecp5_add_sub.sv", "ecp5_ram.sv")
"""The modules of `rtl/` of which the ECP5 has its own, and the cells they are made of."""


KEEP_COPIES = "setattr -set keep 1 w:*.u_copy.data_o %ci1"
"""Keeps the registers of `ahcq_copy.sv`, which are equal, from being merged; before synthesis."""


def copy_sources(folder: Path, cells: tuple[str, ...], extra: tuple[str, ...] = ()) -> list[str]:
    """Copies the RTL under `folder`, packages first; modules in `cells` replace those of the same name.

    Returns
    -------
    list of str
        Paths relative to `folder`.
    """
    replaced = {name.removeprefix("ecp5_") for name in cells}
    paths = [path for path in rtl_sources() if path.name.removeprefix("ahcq_") not in replaced]
    paths += [HERE / name for name in (*cells, *extra)]
    (folder / RTL).mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, folder / RTL / path.name)
    return [f"{RTL}/{path.name}" for path in paths]


def read_command(sources: list[str], top: str, parameters: dict[str, int]) -> str:
    """The line that reads and elaborates; assertions are for simulation."""
    values = " ".join(f"-G {name}=32'd{value}" for name, value in parameters.items())
    return (
        f"read_slang --threads 1 --ignore-assertions --empty-blackboxes -DSYNTHESIS --top {top} {values} "
        + " ".join(sources)
    )


def synthesise(folder: Path, name: str, commands: list[str]) -> float:
    """Runs a script; returns its seconds."""
    (folder / f"{name}.ys").write_text("\n".join(commands) + "\n")
    _, seconds = tools.run("yosys", ["-Q", f"{name}.ys"], folder, f"{name}.log")
    return seconds


def cells_in(path: Path) -> dict[str, int]:
    """Cells by type, of a file that ``stat -json`` wrote."""
    text = path.read_text()
    stat: dict[str, Any] = json.loads(text[text.index("{") :])
    return {str(kind): int(count) for kind, count in stat["design"]["num_cells_by_type"].items()}


def cells_of_netlist(path: Path, top: str) -> dict[str, int]:
    """Cells by type, of the top module of a file that ``write_json`` wrote."""
    module = json.loads(path.read_text())["modules"][top]
    return dict(sorted(Counter(str(cell["type"]) for cell in module["cells"].values()).items()))
