"""``tvm-ahcq info``: what a bundle holds and what it needs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .arguments import input_file
from .console import result, size, table

if TYPE_CHECKING:
    from tvm_ahcq.runtime.offload import OffloadReport

EXAMPLES = """\
example:
  tvm-ahcq info sam_b.ahcq

Works on any machine, also where the bundle itself cannot run; `tvm-ahcq verify` runs it.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "info",
        help="show what a bundle holds and needs",
        description="Show what a bundle holds, and what it needs to run.",
        epilog=EXAMPLES,
    )
    parser.add_argument("bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile`")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read the bundle and print its manifest for people."""
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.offload import OffloadReport

    bundle = read_bundle(args.bundle, check_cpu=False)
    manifest = bundle.manifest
    model = manifest.model
    result(
        "bundle",
        f"{args.bundle}  {size(args.bundle.stat().st_size)}, format {manifest.format_version}, "
        f"by {manifest.created_by}",
    )
    result("model", f"{model.name}, {model.summary}")
    result("numbers", precision(manifest.bits, manifest.recipe.get("name", ""), manifest.weight_bits))
    if manifest.sites[1]:
        result("sites", f"{manifest.sites[0]}/{manifest.sites[1]} on integers")
    for target in manifest.targets:
        needs = ", ".join(target.cpu_features) or "nothing beyond its baseline"
        library = size(len(bundle.libraries[target.name]))
        result("target", f"{target.name}: {target.triple}, needs {needs}; library {library}")
    report = None if manifest.accelerator is None else OffloadReport.from_dict(manifest.accelerator)
    result("runs on", "CPU" if report is None else f"CPU and accelerator {report.config} ({report.config_hash:#010x})")
    for name, function in manifest.functions.items():
        inputs = ", ".join(f"{t.name} {t.dtype}[{', '.join(map(str, t.shape))}]" for t in function.inputs)
        result("function", f"{name}({inputs}), {len(function.params)} parameters")
    if report is not None:
        print_offload(report)
    result("golden", f"{len(bundle.golden)} arrays, for `tvm-ahcq verify`" if bundle.golden else "none")


def print_offload(report: OffloadReport) -> None:
    """Print where every operator runs, and why some stay on the host."""
    from tvm_ahcq.runtime.offload import HEADER, rows, summary

    for function in dict.fromkeys(decision.function for decision in report.decisions):
        if report.offloaded(function):
            result("offload", summary(report, function))
        else:
            result("offload", f"nothing of {function}")
        table(HEADER, rows(report.of(function)), texts=4)


def precision(bits: int, recipe: str, weight_bits: float | None) -> str:
    """Return the precision of a bundle's numbers, for people."""
    if weight_bits is None:
        return "float32"
    return f"W{bits}A{bits}, recipe {recipe}, {weight_bits:.2f} bits a quantized weight"
