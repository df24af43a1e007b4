"""``tvm-ahcq profile``: where the time of a compiled model goes, kernel by kernel."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .arguments import UsageError, add_device_options, count, device_options, input_file, output_file
from .console import duration, result, size, table

if TYPE_CHECKING:
    from pathlib import Path

    from tvm_ahcq.models.description import ModelSpec
    from tvm_ahcq.runtime.device_profile import OperatorCycles
    from tvm_ahcq.runtime.manifest import TargetSpec
    from tvm_ahcq.runtime.profiler import Profile
    from tvm_ahcq.runtime.session import Session

EXAMPLES = """\
examples:
  the image encoder:              tvm-ahcq profile sam_b.ahcq
  prompts and masks, as a picture: tvm-ahcq profile sam_b.ahcq --function decode -o decode.svg
  64 clicks at once:              tvm-ahcq profile sam_b.ahcq --function decode --prompts 64
  one of several targets:         tvm-ahcq profile sam_b.ahcq --target avx2 --threads 1

  CPU and simulated accelerator:  tvm-ahcq profile vit_t.ahcq --device fsim --roofline roofline.svg

How to read it: "of peak" is the part of the multiply-adds a second that a loop of nothing but the machine's multiply
instruction does, measured at the same time on one core, times the threads. Kernels with few multiply-adds for their
bytes cannot come near it. Lines without GMAC/s move or encode data.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "profile",
        help="show where the time of a bundle goes",
        description="Run a bundle and show the time of each kernel, next to what the machine could do.",
        epilog=EXAMPLES,
    )
    parser.add_argument("bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile`")
    parser.add_argument(
        "--function", metavar="NAME", help="function of the bundle to run (default: the first, the image encoder)"
    )
    parser.add_argument(
        "--prompts", metavar="N", type=count, default=1, help="clicks that decode gets at once (default: %(default)s)"
    )
    parser.add_argument("--target", metavar="T", help="which target of the bundle (default: the best for this machine)")
    parser.add_argument("--threads", metavar="N", type=count, help="threads (default: physical cores)")
    parser.add_argument(
        "--repeats",
        metavar="N",
        type=count,
        default=5,
        help="runs, of which the least time counts (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", metavar="F.svg", type=output_file, help="draw the profile to this file")
    parser.add_argument(
        "--roofline",
        metavar="F.svg",
        type=output_file,
        help="draw what each operator on the accelerator makes of its array and its memory",
    )
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Load, profile, print, draw."""
    from tvm_ahcq.models.registry import timing_of
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.profiler import profile
    from tvm_ahcq.runtime.session import Session

    bundle = read_bundle(args.bundle, target=args.target)
    function = _function(bundle.manifest.model, args.function, args.prompts)
    if args.roofline is not None and bundle.manifest.accelerator is None:
        raise UsageError(
            f"profile: {args.bundle} has nothing for an accelerator to draw; compile it with "
            "--accelerator, or leave out --roofline"
        )
    session = Session(bundle, args.threads, device_options(args))
    before = _peaks(session.target)
    inputs = timing_of(session.model).example_inputs(session.model, function, args.prompts)
    found = profile(session, function, list(inputs), args.repeats)
    after = _peaks(session.target)
    peaks = {unit: session.num_threads * max(rate, after[unit]) for unit, rate in before.items()}
    result("bundle", f"{args.bundle}, {session.model.name}, {function}")
    result(
        "machine",
        f"{session.target.name}, {session.num_threads} threads"
        + "".join(f"; {unit} peak {rate / 1e9:.0f} GMAC/s" for unit, rate in peaks.items()),
    )
    _print(found, peaks)
    _print_device(session, function, args.roofline)
    if args.output is not None:
        from tvm_ahcq.evaluate.report.profile_plot import profile_plot

        args.output.write_text(profile_plot(found, peaks), encoding="utf-8")
        result("picture", str(args.output))


def _print_device(session: Session, function: str, roofline: Path | None) -> None:
    """Cycles of every operator on the accelerator, and how much of them its units work."""
    from tvm_ahcq.runtime.device_profile import device_profile, total

    found = device_profile(session, function)
    if session.accelerator is None or not found:
        return
    result("device", session.accelerator.device)
    table(
        ("operator", "kind", "MMAC", "kcycles", "array", "vector", "load", "store", "traffic", "MAC/byte"),
        [_cells(each) for each in found],
        texts=2,
    )
    every = total(found, "total")
    result(
        "total",
        f"{every.cycles / 1e6:.2f} M cycles, the array busy in {every.busy:.0%} of them; "
        f"{every.estimate / 1e6:.2f} M were expected",
    )
    if roofline is not None:
        from tvm_ahcq.codegen.isa.config import named
        from tvm_ahcq.evaluate.report.roofline_plot import roofline_plot

        config = named(session.accelerator.config)
        title = f"{session.model.name}, {function}, {config.name}: {every.cycles / 1e6:.1f} M cycles"
        drawn = roofline_plot(title, found, config.dim**2, config.beat_bytes)
        roofline.write_text(drawn, encoding="utf-8")
        result("roofline", str(roofline))


def _cells(each: OperatorCycles) -> tuple[str, ...]:
    units = [f"{busy / max(each.cycles, 1):.0%}" for busy in (each.array, each.vector, each.load, each.store)]
    traffic = each.loaded + each.stored
    return (
        each.name,
        each.kind,
        f"{each.macs / 1e6:.2f}",
        f"{each.cycles / 1e3:.1f}",
        *units,
        size(traffic),
        f"{each.macs / max(traffic, 1):.1f}",
    )


def _peaks(target: TargetSpec) -> dict[str, float]:
    """Multiply-adds a second of one core, by unit."""
    from tvm_ahcq.kernels.peak import peak_loops
    from tvm_ahcq.target import resolve_target

    return {unit: loop.rate() for unit, loop in peak_loops(resolve_target(target.name)).items()}


def _function(model: ModelSpec, name: str | None, prompts: int) -> str:
    """Return the function to run; UsageError if there is none of that name, or it takes no prompts."""
    from tvm_ahcq.models.registry import find_family

    family = find_family(model.family)
    batched = {dim.name for dim in family.dims if dim.batch}
    functions = {each.name: any(batched & set(tensor.shape) for tensor in each.inputs) for each in family.functions}
    chosen = family.functions[0].name if name is None else name
    if chosen not in functions:
        raise UsageError(f"profile: --function {chosen} is none of {', '.join(functions)}")
    if prompts > 1 and not functions[chosen]:
        prompted = " or ".join(each for each, takes in functions.items() if takes)
        raise UsageError(f"profile: --prompts {prompts} goes with --function {prompted}")
    return chosen


def _print(found: Profile, peaks: Mapping[str, float]) -> None:
    inside = sum(kernel.seconds for kernel in found.kernels)
    rows = []
    for kernel in found.kernels:
        rate = kernel.macs / kernel.seconds if kernel.macs else 0.0
        rows.append(
            (
                kernel.kernel,
                kernel.shape,
                str(kernel.calls),
                f"{1e3 * kernel.seconds:.2f}",
                f"{kernel.seconds / inside:.1%}",
                f"{rate / 1e9:.0f}" if rate else "",
                f"{rate / peaks[kernel.unit]:.2f}" if rate and kernel.unit in peaks else "",
                size(kernel.bytes),
            )
        )
    table(("kernel", "shape", "calls", "ms", "share", "GMAC/s", "of peak", "bytes"), rows, texts=2)
    products = sum(kernel.seconds for kernel in found.kernels if kernel.macs)
    result(
        "total",
        f"{duration(found.seconds)}; in kernels {duration(inside)}, of which {products / inside:.0%} in "
        "products and attention",
    )
