"""Lint the RTL of every named configuration of the accelerator with Verilator."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from tvm_ahcq.codegen.hardware.simulator import lint
from tvm_ahcq.codegen.isa.config import CONFIGS, named


def main() -> int:
    """Print the warnings; return 1 if there are any."""
    with ThreadPoolExecutor(2) as pool:
        reports = dict(zip(CONFIGS, pool.map(lint, map(named, CONFIGS)), strict=True))
    warnings = {name: report for name, report in reports.items() if "%Warning" in report}
    for name, report in warnings.items():
        print(f"{name}:\n{report}")
    return int(bool(warnings))


if __name__ == "__main__":
    sys.exit(main())
