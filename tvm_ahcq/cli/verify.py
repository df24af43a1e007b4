"""``tvm-ahcq verify``: is the file whole, and does it compute here what it computed where it was made?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .arguments import add_device_options, device_options, input_file
from .console import progress_bar, result, table

if TYPE_CHECKING:
    from tvm_ahcq.runtime.kernel_check import KernelReport, KindReport
    from tvm_ahcq.runtime.session import Session

EXAMPLES = """\
examples:
  before it is shipped:        tvm-ahcq verify sam_b.ahcq && scp sam_b.ahcq camera:
  first day of a new machine:  tvm-ahcq verify --kernels sam_b.ahcq
  one of several targets:      tvm-ahcq verify --kernels --target avx2 sam_b.ahcq

Checks every SHA-256 in the bundle, then runs it on the input that it carries and compares the result with the output
that it carries.

--kernels first compares every kernel of the bundle with its definition in numpy, on this machine. The golden picture
passes through all functions of the model, those of the memory included; of each kernel, the first call with each shape
of arguments is computed again. Integers, and floats whose rounding is defined, must be equal in every bit; other
float32 kernels must agree with float64 within the tolerance that the table states. Of large outputs a fixed random
choice of rows, heads or queries is compared, the first and the last among them: "compared" says how many elements. What
TVM fused by itself, and what runs on an accelerator, is counted and not compared. Time and memory are bounded for each
kernel, whatever the size of the picture.

Exit status 0 if all holds, 2 with one line that says what does not: the kernel, its shape, and the first element.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "verify",
        help="check that a bundle is whole and computes what it should",
        description="Check that a bundle is whole, and that it computes here what it should.",
        epilog=EXAMPLES,
    )
    parser.add_argument("bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile`")
    parser.add_argument(
        "--kernels", action="store_true", help="also compare every kernel with its definition in numpy, on this machine"
    )
    parser.add_argument("--target", metavar="T", help="which target of the bundle (default: the best for this machine)")
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read (which checks the hashes), compare kernels if asked to, run the golden pair, print what was compared."""
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.session import Session

    session = Session(read_bundle(args.bundle, target=args.target), device=device_options(args))
    result("hashes", f"{args.bundle} is whole")
    if args.kernels:  # first: they say why a golden pair does not agree
        _verify_kernels(session)
    for check in session.verify():
        result("golden", str(check))


def _verify_kernels(session: Session) -> None:
    from tvm_ahcq.runtime.kernel_check import check_kernels, require_equal

    with progress_bar("kernels") as progress:
        report = check_kernels(session, progress)
    _print(report)
    require_equal(session, report)


def _print(report: KernelReport) -> None:
    """One line for each kind, then all together."""
    table(
        ("kind", "result", "asked for", "kernels", "calls", "elements", "compared"),
        [_cells(kind) for kind in report.kinds],
        texts=3,
    )
    for difference in report.differences:
        result("differs", str(difference))
    kernels, calls = sum(len(kind.symbols) for kind in report.kinds), sum(kind.calls for kind in report.kinds)
    elements, compared = (sum(getattr(kind, name) for kind in report.kinds) for name in ("elements", "compared"))
    share = "all elements" if compared == elements else f"{compared} of {elements} elements, by a fixed random choice"
    result("kernels", f"{kernels} for target {report.target}, {calls} calls; {share}")
    if report.others:
        count = sum(report.others.values())
        result("others", f"{len(report.others)} functions without a reference, {count} calls, not compared")
    if report.not_run:
        result("not run", ", ".join(report.not_run))


def _cells(kind: KindReport) -> tuple[str, ...]:
    found = f"{len(kind.differences)} calls DIFFER" if kind.differences else "as asked"
    counts = (len(kind.symbols), kind.calls, kind.elements, kind.compared)
    return (kind.kind, found, kind.rule, *map(str, counts))
