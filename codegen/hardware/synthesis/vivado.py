"""Writes a Vivado project script for a Zynq UltraScale+ board. Untested: no vendor tool was at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

from tvm_ahcq.codegen.isa.config import Config

from . import yosys

PART = "xczu9eg-ffvb1156-2-e"
"""The device of a ZCU102."""
_SCRIPT = """# Untested: written without access to Vivado. Run in this folder: vivado -mode batch -source project.tcl
create_project -force ahcq project -part {part}
add_files [list {sources} ahcq_zynq.v]
set_property file_type SystemVerilog [get_files *.sv]
set_property top ahcq_zynq [current_fileset]
set_property generic {{{generics}}} [current_fileset]
add_files -fileset constrs_1 clock.xdc
update_compile_order -fileset sources_1

# Resources and timing of the accelerator alone; in a block design, add the module ahcq_zynq, connect m_axi to a high
# performance slave port of the processing system and s_axi to a general purpose master port, and irq to pl_ps_irq.
synth_design -mode out_of_context
opt_design
place_design
phys_opt_design
route_design
report_utilization -file utilization.txt
report_timing_summary -file timing.txt
write_checkpoint -force ahcq.dcp
"""


def write_project(config: Config, folder: Path, frequency_mhz: float) -> Path:
    """Copies the RTL and writes ``project.tcl`` and ``clock.xdc``; returns the script."""
    sources = yosys.copy_sources(folder, ())
    shutil.copyfile(yosys.HERE / "ahcq_zynq.v", folder / "ahcq_zynq.v")
    generics = " ".join(f"{name}=32'd{value}" for name, value in config.parameters().items())
    script = folder / "project.tcl"
    script.write_text(_SCRIPT.format(part=PART, sources=" ".join(sources), generics=generics))
    (folder / "clock.xdc").write_text(f"create_clock -period {1000 / frequency_mhz:.3f} [get_ports aclk]\n")
    return script
