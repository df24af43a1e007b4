"""The command ``tvm-ahcq``: finds the subcommand, and turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tvm_ahcq import __version__
from tvm_ahcq.errors import AhcqError

from . import (
    analyze,
    bench,
    demo,
    devices,
    disasm,
    evaluate,
    info,
    profile,
    scenes,
    segment,
    serve,
    track,
    tune,
    unpack,
    verify,
)
from . import compile as compile_command
from .arguments import Parser
from .console import complain

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
COMMANDS = (
    demo,
    compile_command,
    segment,
    track,
    evaluate,
    analyze,
    info,
    verify,
    profile,
    disasm,
    devices,
    serve,
    unpack,
    tune,
    bench,
    scenes,
)
"""In the order in which the help shows them."""

EXAMPLES = """\
examples:
  tvm-ahcq demo                                   the whole way once, with the small model that comes along
  tvm-ahcq compile --model vit_b --checkpoint sam_vit_b_01ec64.pth --calibration photos/ -o sam_b.ahcq
  tvm-ahcq segment sam_b.ahcq photo.jpg --point 320,240 -o segmented.png
  tvm-ahcq track sam2_t.ahcq video.mp4 --point 320,240 -o tracked.mp4
  tvm-ahcq eval sam_b.ahcq --images photos/ --masks masks/
  tvm-ahcq info sam_b.ahcq

`tvm-ahcq COMMAND --help` explains a command. Exit status: 0 done, 2 something you can mend (one line says what).
"""


def build_parser() -> Parser:
    """Parser of the whole command line; each command's ``run`` is set as the default of ``args.run``."""
    parser = Parser(
        prog="tvm-ahcq",
        epilog=EXAMPLES,
        description="Segment Anything at 4 bits: compile a checkpoint, run it without torch.",
    )
    parser.add_argument("--version", action="version", version=f"tvm-ahcq {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (``sys.argv[1:]`` by default) and return the exit status."""
    try:
        args = build_parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except AhcqError as error:
        complain(str(error))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone (`| head`); keep Python from complaining when it closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
