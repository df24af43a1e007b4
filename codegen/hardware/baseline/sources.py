"""Source files of the floating-point core."""

from __future__ import annotations

from pathlib import Path

from tvm_ahcq.codegen.hardware.simulator import HERE as HARDWARE
from tvm_ahcq.codegen.hardware.simulator import verilator

from .model import Core

HERE = Path(__file__).resolve().parent
TOP = "fp_gemm"
_SHARED = ("ahcq_add_sub.sv", "ahcq_count.sv", "ahcq_ram.sv")


def rtl_sources() -> list[Path]:
    """SystemVerilog files, the package first; adders, counters and memories are the accelerator's."""
    package = HERE / "rtl" / "fp_pkg.sv"
    cores = sorted(path for path in (HERE / "rtl").glob("*.sv") if path != package)
    return [package, *(HARDWARE / "rtl" / name for name in _SHARED), *cores]


def lint(core: Core) -> str:
    """Verilator's warnings about a core, with the waivers of ``lint/waivers.vlt``."""
    parameters = [f"-G{name}={value}" for name, value in core.parameters().items()]
    waivers = str(HARDWARE / "lint" / "waivers.vlt")
    return verilator("--lint-only", "-Wall", waivers, *map(str, rtl_sources()), "--top-module", TOP, *parameters)
