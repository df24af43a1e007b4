"""Takes what tuning found for the published encoders into what compile knows without tuning.

tvm-ahcq tune --model vit_b --trials 16 --out tuning/
python -m tvm_ahcq.tune.update_defaults tuning/
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tvm_ahcq.kernels.gemm.tiling import DEFAULT

from .records import SHIPPED, Record, read, read_lines

WORTH = 0.98
"""Part of the default's time that a schedule may take at most: less may be noise."""


def worth_shipping(records: Iterable[Record]) -> list[Record]:
    """Of each target, workload and number of rows the default and the fastest schedule, if that is clearly faster."""
    fastest: dict[tuple, dict] = {}
    for record in records:
        known = fastest.setdefault((record.target, record.workload, record.rows), {})
        if record.seconds is not None:
            before = known.setdefault(record.schedule, record)
            known[record.schedule] = min(before, record, key=lambda each: each.seconds)
    found = []
    for _, known in sorted(fastest.items(), key=lambda item: item[0]):
        best = min(known.values(), key=lambda each: each.seconds)
        if best.seconds <= WORTH * known[DEFAULT].seconds:
            found += [known[DEFAULT], best]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="records of `tvm-ahcq tune`")
    new = [record for folder in parser.parse_args().folder for record in worth_shipping(read(folder))]
    replaced = {(record.target, record.workload, record.rows) for record in new}
    kept = read_lines(SHIPPED.read_text(encoding="utf-8").splitlines())
    kept = [record for record in kept if (record.target, record.workload, record.rows) not in replaced]
    lines = [json.dumps(asdict(record)) + "\n" for record in kept + new]
    part = SHIPPED.with_suffix(".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(SHIPPED)
    print(f"{SHIPPED}: {len(lines) // 2} shapes, {len(new) // 2} of them new")


if __name__ == "__main__":
    main()
