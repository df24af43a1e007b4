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
    from tvm_ahcq.codegen.isa.encoding import instruction_count
    from tvm_ahcq.codegen.lower.disassemble import disassemble
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.offload import OffloadReport
    from tvm_ahcq.runtime.session import Session

    bundle = read_bundle(args.bundle)
    if bundle.manifest.accelerator is None:
        raise BundleError(f"{args.bundle}: runs on the host alone; compile it with --accelerator CONFIG")
    decisions = OffloadReport.from_dict(bundle.manifest.accelerator).offloaded()
    accelerator = Session(bundle).accelerator
    assert accelerator is not None, "the manifest says that there is one"
    if args.operator is None:
        for decision in decisions:
            size = instruction_count(accelerator.program(decision.symbol))
            result(decision.function, f"{decision.name}  {decision.kind}, {size} instructions")
        return
    for line in disassemble(accelerator.program(_chosen(args.operator, decisions).symbol)):
        print(line)


def _chosen(text: str, decisions: Sequence[OffloadDecision]) -> OffloadDecision:
    """Return the operator of that name, or the only one whose name contains it; behind "decode/", of that function."""
    function, slash, name = text.rpartition("/")
    of_function = [decision for decision in decisions if not slash or decision.function == function]
    matches = [each for each in of_function if each.name == name] or [each for each in of_function if name in each.name]
    if len(matches) != 1:
        names = ", ".join(f"{each.function}/{each.name}" for each in matches[:4])
        names = names or "nothing that the accelerator runs"
        raise UsageError(f"disasm: {text!r} is {names}; give the name of one operator, as listed without it")
    return matches[0]
