"""``tvm-ahcq disasm``: the instructions that an accelerator runs for an operator of a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvm_ahcq.errors import BundleError

from .arguments import UsageError, input_file
from .console import result

if TYPE_CHECKING:
    from tvm_ahcq.runtime.offload import OffloadDecision

EXAMPLES = """\
examples:
  which operators there are:  tvm-ahcq disasm vit_t.ahcq
  the program of one:         tvm-ahcq disasm vit_t.ahcq image_encoder.blocks.0.attn
  of one of two functions:    tvm-ahcq disasm vit_t.ahcq decode/final_attn_token_to_image.k_proj

A line: index, units whose token it takes (<) and gives (>), instruction and memory, fields that are not 0. L load, G
gemm, V vector, S store. The instruction set is described in codegen/isa/SPEC.md.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "disasm",
        help="list the accelerator's instructions of a bundle",
        description="List the instructions that an accelerator runs for an operator.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile --accelerator`"
    )
    parser.add_argument(
        "operator",
        nargs="?",
        help="its name in `tvm-ahcq info`, or a part of it that no other "
        "has; FUNCTION/NAME where two functions have it",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Load the library that holds the programs, find the operator, print."""
    from tvm_ahcq.codegen.lower.disassemble import disassemble
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.offload import OffloadReport
    from tvm_ahcq.runtime.session import Session

    bundle = read_bundle(args.bundle)
    if bundle.manifest.accelerator is None:
        raise BundleError(f"{args.bundle}: runs on the host alone; compile it with --accelerator CONFIG")
    places = OffloadReport.from_dict(bundle.manifest.accelerator).offloaded()
    accelerator = Session(bundle).accelerator
    assert accelerator is not None, "the manifest says that there is one"
    if args.operator is None:
        for place in places:
            size = len(accelerator.program(place.symbol)) // 32
            result(place.function, f"{place.name}  {place.kind}, {size} instructions")
        return
    for line in disassemble(accelerator.program(_chosen(args.operator, places).symbol)):
        print(line)


def _chosen(text: str, places: Sequence[OffloadDecision]) -> OffloadDecision:
    """The operator of that name, or the only one whose name has it as a part; behind "decode/", of that function."""
    function, slash, name = text.rpartition("/")
    among = [place for place in places if not slash or place.function == function]
    found = [place for place in among if place.name == name] or [place for place in among if name in place.name]
    if len(found) != 1:
        names = ", ".join(f"{place.function}/{place.name}" for place in found[:4])
        names = names or "nothing that the accelerator runs"
        raise UsageError(f"disasm: {text!r} is {names}; give the name of one operator, as listed without it")
    return found[0]
