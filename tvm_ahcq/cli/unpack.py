"""``tvm-ahcq unpack``: a bundle as plain files, for programs that run it without Python."""

from __future__ import annotations

import argparse

from .arguments import input_file, new_folder
from .console import result, size

EXAMPLES = """\
example:
  tvm-ahcq unpack vit_t.ahcq unpacked/       then run it from C++: tutorials/cpp_deploy

Writes library.so, the compiled functions and the accelerator's programs; NAME.params for each function, the tensors
that it takes after its inputs, as TVM's runtime.LoadParamsFromFile reads them; and golden.params, an image to try it.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "unpack",
        help="write a bundle's library and tensors as files, for use from C++",
        description="Write the library and the tensors of a bundle as files.",
        epilog=EXAMPLES,
    )
    parser.add_argument("bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile`")
    parser.add_argument("folder", metavar="DIR", type=new_folder, help="where to; files in it are overwritten")
    parser.add_argument("--target", metavar="T", help="which target of the bundle (default: the best for this machine)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read (which checks the file), write, list."""
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.unpack import unpack

    for path in unpack(read_bundle(args.bundle, check_cpu=args.target is None, target=args.target), args.folder):
        result("written", f"{path}  {size(path.stat().st_size)}")
