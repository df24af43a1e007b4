"""Random programs on the numpy model and on the Verilated RTL: memory, errors and counters must agree.

    python benchmarks/fpga_agree.py --config sim_4x4 --programs 2000

Prints a table, and exits with 1 at the first disagreement.
"""

from __future__ import annotations

import argparse
import sys
import time

from tvm_ahcq.codegen.hardware.agreement import disagreement
from tvm_ahcq.codegen.hardware.config import named
from tvm_ahcq.codegen.hardware.random_program import FAULTS


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sim_4x4", help="of configs.yaml (default: %(default)s)")
    parser.add_argument("--programs", type=int, default=2000, help="legal ones; a fifth as many have a fault")
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    options = parser.parse_args()
    config = named(options.config)
    print(f"| {config.name}: class | programs | agree | seconds |\n|---|---|---|---|")
    for fault in ("none", *FAULTS):
        count = options.programs if fault == "none" else -(-options.programs // (5 * len(FAULTS)))
        start = time.perf_counter()
        for seed in range(options.seed, options.seed + count):
            problem = disagreement(config, seed, fault)
            if problem is not None:
                print(problem)
                return 1
        print(f"| {fault} | {count} | {count} | {time.perf_counter() - start:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
