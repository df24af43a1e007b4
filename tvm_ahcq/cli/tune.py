"""``tvm-ahcq tune``: find the fastest schedules of a bundle for this machine, for a board, or for an accelerator."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvm_ahcq.errors import TuningError
from tvm_ahcq.models.registry import encoders

from .arguments import UsageError, count, input_file, new_folder
from .console import duration, result

if TYPE_CHECKING:
    from tvm_ahcq.tune.accelerator.tuner import TileSearchState
    from tvm_ahcq.tune.host.measure import Tracker
    from tvm_ahcq.tune.host.tuner import SearchState

EXAMPLES = """\
examples:
  on this machine:            tvm-ahcq tune sam_b.ahcq --trials 40 --out tuning/
  without a bundle:           tvm-ahcq tune --model vit_h --trials 40 --out tuning/
  go on after a kill:         tvm-ahcq tune sam_b.ahcq --trials 80 --out tuning/ --resume
  on a board, by a tracker:   python -m tvm.exec.rpc_tracker --port 9190           # here
                              python -m tvm.exec.rpc_server --tracker HOST:9190 --key a53   # on the board
                              tvm-ahcq tune sam_b.ahcq --target aarch64 --rpc HOST:9190 --key a53 --out tuning/
  for an accelerator:         tvm-ahcq tune sam_b.ahcq --accelerator ecp5_16x16 --out tuning/
  compile with the result:    tvm-ahcq compile --model vit_b ... --tuning tuning/ -o sam_b.ahcq

What is tuned is the blocking of the integer matrix products, where most of the time goes; results never change. For
the encoders of SAM and SAM 2 on AVX512-VNNI, compile knows good schedules. With --accelerator, tiles, loop order and
split of the buffers of its programs are tuned instead: linear layers and attention, by cycles of the functional
simulator, so no board is needed. Every measurement is a line of records.jsonl in the folder, which may hold records of
both. Needs xgboost: pip install 'tvm-ahcq[tune]'.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "tune",
        help="find the fastest schedules of a bundle's kernels",
        description="Measure schedules of a bundle's kernels and keep the fastest.",
        epilog=EXAMPLES,
    )
    every = list(encoders())
    tiled = [name for name, sizes in encoders().items() if sizes.attention]
    parser.add_argument("bundle", metavar="F.ahcq", type=input_file, nargs="?", help="bundle whose shapes to tune for")
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="without a bundle: tune for the image encoder of "
        f"{', '.join(every[:-1])} or {every[-1]} at 1024 x 1024 and 4 bits; with --accelerator, of {', '.join(tiled)}",
    )
    parser.add_argument("--target", help="processor to tune for (default: native)")
    parser.add_argument(
        "--accelerator",
        metavar="CONFIG",
        help="tune programs for the accelerator of this configuration, such as ecp5_16x16, instead of "
        "kernels; a bundle must have been compiled for it",
    )
    parser.add_argument(
        "--trials",
        metavar="N",
        type=count,
        default=40,
        help="candidates for each shape, those of earlier runs included (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="DIR", type=new_folder, required=True, help="folder for the records")
    parser.add_argument("--resume", action="store_true", help="go on with the records in the folder")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="tracker that knows the boards to measure on")
    parser.add_argument("--key", metavar="K", help="with --rpc: key of the boards")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Search; one line for each batch, one for each shape at the end."""
    if (args.bundle is None) == (args.model is None):
        raise UsageError("tune: give a bundle, such as sam_b.ahcq, or --model, and not both")
    try:
        if args.accelerator is None:
            _run_host(args)
        else:
            _run_accelerator(args)
    except ImportError as error:  # what MetaSchedule's runners need
        raise TuningError(f"tuning needs the package {error.name}: pip install 'tvm-ahcq[tune]'") from error


def _run_host(args: argparse.Namespace) -> None:
    """Kernels of a processor."""
    where = _tracker(args)
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.target import resolve_target
    from tvm_ahcq.tune.host.measure import make_runner
    from tvm_ahcq.tune.host.tuner import tune, workloads

    target = resolve_target(args.target or "native")
    if args.bundle is None:
        from tvm_ahcq.tune.host.shapes import encoder_workloads

        if args.model not in encoders():
            raise UsageError(f"tune: --model {args.model} is none of {', '.join(encoders())}")
        work = encoder_workloads(args.model)
    else:
        work = workloads(read_bundle(args.bundle, check_cpu=False))
    result("tune", f"{len(work)} shapes for {target.name}, {args.trials} candidates each")
    found = tune(target, work, args.trials, args.out, make_runner(target, where), args.resume, _show)
    for state in found:
        if state.best is not None and state.default is not None:
            result("best", f"{state.workload}: {duration(state.best)}, {state.default / state.best:.2f}x the default")
    _show_records(args, found)


def _run_accelerator(args: argparse.Namespace) -> None:
    """Tiles of an accelerator's programs."""
    for name in ("target", "rpc", "key"):
        if getattr(args, name) is not None:
            raise UsageError(f"tune: --{name} is of processors; --accelerator measures on the functional simulator")
    from tvm_ahcq.codegen.isa.config import named
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.tune.accelerator.runner import CycleRunner
    from tvm_ahcq.tune.accelerator.shapes import encoder_shapes, tile_encoders
    from tvm_ahcq.tune.accelerator.tuner import bundle_shapes, tune_tiles

    config = named(args.accelerator)
    if args.bundle is not None:
        shapes = bundle_shapes(read_bundle(args.bundle, check_cpu=False), config)
    elif args.model in tile_encoders():
        shapes = encoder_shapes(args.model, config)
    else:
        raise UsageError(
            f"tune: with --accelerator, --model {args.model} is none of {', '.join(tile_encoders())}; of "
            "any other model, give a bundle that was compiled for the accelerator"
        )
    result("tune", f"{len(shapes)} shapes for {config.name}, {args.trials} candidates each")
    found = tune_tiles(config, shapes, args.trials, args.out, CycleRunner(), args.resume, _show_tile)
    for state in found:
        if state.best is not None and state.default is not None:
            saved = 1 - state.best / state.default
            result(
                "best",
                f"{state.workload}: {state.tile}, {state.best / 1e6:.3f} M cycles, {saved:.2%} fewer than the default",
            )
    _show_records(args, found)


def _show_records(args: argparse.Namespace, found: Sequence[SearchState]) -> None:
    failed = sum(state.failed for state in found)
    result("records", f"{args.out}: {sum(state.trials for state in found)} candidates, {failed} failed")


def _tracker(args: argparse.Namespace) -> Tracker | None:
    if (args.rpc is None) != (args.key is None):
        raise UsageError("tune: --rpc HOST:PORT and --key K go together")
    if args.rpc is None:
        return None
    from tvm_ahcq.tune.host.measure import Tracker

    host, _, port = args.rpc.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"tune: --rpc {args.rpc} is not HOST:PORT, such as 192.168.1.2:9190")
    return Tracker(host, int(port), args.key)


def _show(state: SearchState) -> None:
    best, default = (duration(t) if t is not None else "none" for t in (state.best, state.default))
    result("", f"{state.workload}: {state.trials}/{state.total}, best {best}, default {default}, {state.failed} failed")


def _show_tile(state: TileSearchState) -> None:
    if state.reason:
        result("", f"{state.workload}: stays on the host: {state.reason}")
        return
    best, default = (f"{count / 1e6:.3f} M" if count is not None else "none" for count in (state.best, state.default))
    result(
        "",
        f"{state.workload}: {state.trials}/{state.total}, best {best}, default {default} cycles, {state.failed} "
        f"failed; not tried: {state.too_large} do not fit, {state.hopeless} cannot win",
    )
