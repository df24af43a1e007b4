"""Random programs on the numpy model, the functional simulator and the Verilated RTL: they must agree.

Memory, error code, its index and the exact counters are compared; between simulators, where nothing stalls, every
counter. Memories have different latencies, widths and random stalls. Where memory answers with a bus error, only the
code is compared, and of a fetch its index.

    python benchmarks/fpga_agree.py --config sim_4x4 --programs 2000

Writes ``benchmarks/results/fpga_agree_<config>.md``; exits with 1 at the first find_mismatch.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tvm_ahcq.codegen.hardware.cosim import BUS_ERRORS, find_bus_mismatch, find_mismatch
from tvm_ahcq.codegen.hardware.fuzz import FAULTS
from tvm_ahcq.codegen.isa.config import named


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sim_4x4", help="of configs.yaml (default: %(default)s)")
    parser.add_argument("--programs", type=int, default=2000, help="legal ones; a fifth as many have a fault")
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    options = parser.parse_args()
    config = named(options.config)
    table = [f"| {config.name}: class | programs | agree | seconds |", "|---|---|---|---|"]
    print("\n".join(table))
    for fault in ("none", *FAULTS, *BUS_ERRORS):
        count = options.programs if fault == "none" else -(-options.programs // (5 * len(FAULTS)))
        check = find_bus_mismatch if fault in BUS_ERRORS else find_mismatch
        start = time.perf_counter()
        for seed in range(options.seed, options.seed + count):
            problem = check(config, seed, fault)
            if problem is not None:
                print(problem)
                return 1
        table.append(f"| {fault} | {count} | {count} | {time.perf_counter() - start:.0f} |")
        print(table[-1], flush=True)
    path = Path(__file__).resolve().parent / "results" / f"fpga_agree_{config.name}.md"
    path.write_text(
        "\n".join([f"# Random programs: numpy model, functional simulator and RTL of `{config.name}`", "", *table])
        + "\n"
    )
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
