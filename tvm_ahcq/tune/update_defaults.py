"""Add tuning results for the published encoders to the schedules that are used without tuning.

tvm-ahcq tune --model MODEL --trials 16 --out tuning/
python -m tvm_ahcq.tune.update_defaults tuning/
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tvm_ahcq.kernels.gemm.tiling import DEFAULT

from .records import DEFAULTS_FILE, Record, read, read_lines

MAX_TIME_RATIO = 0.98
"""Largest ratio of a schedule's time to the default's: a smaller gain may be noise."""


def clear_gains(records: Iterable[Record]) -> list[Record]:
    """Return the default and the fastest schedule of each target, workload and number of rows, if the gain is clear."""
    measured: dict[tuple, dict] = {}
    for record in records:
        by_schedule = measured.setdefault((record.target, record.workload, record.rows), {})
        if record.seconds is not None:
            before = by_schedule.setdefault(record.schedule, record)
            by_schedule[record.schedule] = min(before, record, key=lambda each: each.seconds)
    gains = []
    for _, by_schedule in sorted(measured.items(), key=lambda item: item[0]):
        best = min(by_schedule.values(), key=lambda each: each.seconds)
        if best.seconds <= MAX_TIME_RATIO * by_schedule[DEFAULT].seconds:
            gains += [by_schedule[DEFAULT], best]
    return gains


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="records of `tvm-ahcq tune`")
    new = [record for folder in parser.parse_args().folder for record in clear_gains(read(folder))]
    replaced = {(record.target, record.workload, record.rows) for record in new}
    old = read_lines(DEFAULTS_FILE.read_text(encoding="utf-8").splitlines())
    old = [record for record in old if (record.target, record.workload, record.rows) not in replaced]
    lines = [json.dumps(asdict(record)) + "\n" for record in old + new]
    part = DEFAULTS_FILE.with_suffix(".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(DEFAULTS_FILE)
    print(f"{DEFAULTS_FILE}: {len(lines) // 2} shapes, {len(new) // 2} of them new")


if __name__ == "__main__":
    main()
