"""``tvm-ahcq verify``: is the file whole, and does it compute here what it computed where it was made?"""

from __future__ import annotations

import argparse

from .arguments import add_device_options, device_options, input_file
from .console import result

EXAMPLES = """\
example:
  tvm-ahcq verify sam_b.ahcq && scp sam_b.ahcq camera:

Checks every SHA-256 in the bundle, then runs it on the input that it carries and compares the result with the output
that it carries. Exit status 0 if both hold, 2 with one line that says what does not.
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
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read (which checks the hashes), run the golden pair, print what was compared."""
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.session import Session

    checks = Session(read_bundle(args.bundle), device=device_options(args)).verify()
    result("hashes", f"{args.bundle} is whole")
    for check in checks:
        result("golden", str(check))
