"""``tvm-ahcq compile``: a checkpoint and calibration pictures in, one deployable file out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, input_folder, input_path, new_folder, output_file
from .console import duration, progress_bar, ratio, result, size, table
from .info import print_offload
from .models import (
    EMBEDDED,
    add_checkpoint_option,
    add_model_option,
    check_video,
    check_weights,
    is_embedded,
    load_model,
    print_model,
)

if TYPE_CHECKING:
    from tvm_ahcq.pipeline import PhaseTime

GENERATED_IMAGES, GENERATED_FIRST_SEED = 16, 500_000
"""Scenes or clips to calibrate the embedded model on; their seeds are used for neither training nor evaluation."""

GENERATED_FRAMES = 4
"""Frames of a generated clip."""

EXAMPLES = """\
examples:
  the small model that comes along:   tvm-ahcq compile --model vit_t -o vit_t.ahcq
  SAM ViT-B from its checkpoint:      tvm-ahcq compile --model vit_b --checkpoint sam_vit_b_01ec64.pth \\
                                          --calibration photos/ -o sam_b.ahcq
  for any x86-64 machine:             tvm-ahcq compile --model vit_t --target generic -o vit_t.ahcq
  one file for many machines:         tvm-ahcq compile --model vit_t --target avx512-vnni,avx2,generic -o vit_t.ahcq
  to track objects in videos, too:    tvm-ahcq compile --model sam2_n --video -o sam2_n.ahcq
  for a CPU and an accelerator:       tvm-ahcq compile --model vit_t --accelerator ecp5_16x16 -o vit_t.ahcq
  keep what calibration found:        tvm-ahcq compile --model vit_t --table vit_t.json -o vit_t.ahcq
  use it again, perhaps edited:       tvm-ahcq compile --model vit_t --calibration vit_t.json -o vit_t.ahcq

  keep masks within 2 % of float:     tvm-ahcq compile --model vit_t --max-drop 0.02 -o vit_t.ahcq
  learn rounding, resumable:          tvm-ahcq compile --model vit_t --effort high --work-dir blocks/ -o vit_t.ahcq

Calibration sees only the pictures, no annotation; 16 to 32 photos like those that the model will meet are enough.
The file runs with `tvm-ahcq segment` or, in Python, tvm_ahcq.load(...), without torch.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "compile",
        help="compile a checkpoint to one deployable file",
        description="Quantize a checkpoint and compile it to one deployable file.",
        epilog=EXAMPLES,
    )
    add_model_option(parser, required=True)
    add_checkpoint_option(parser, "the model's weights, a file as its authors publish it")
    parser.add_argument(
        "--video",
        action="store_true",
        help="SAM 2: compile the memory too, which tracking in videos needs",
    )
    parser.add_argument("--recipe", help="which quantizer goes where: ahcq (default), paper, ptq4sam, minmax, ...")
    parser.add_argument("--bits", type=int, help="bits of weights and activations: 4 (default), 5, 6 or 8")
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        type=input_path,
        help="folder of pictures, with --video of videos or folders of frames; or a table written with --table; "
        f"default for {EMBEDDED}: {GENERATED_IMAGES} generated scenes, with --video clips",
    )
    parser.add_argument(
        "--effort",
        choices=("default", "high"),
        help="high: go on to learn rounding and scales block by block; hours for the large models",
    )
    parser.add_argument(
        "--work-dir",
        metavar="D",
        type=new_folder,
        help="with --effort high: save finished blocks here, and go on from there after a kill",
    )
    parser.add_argument(
        "--max-drop",
        metavar="X",
        type=float,
        help="raise the sites and weights that hurt most to 6 or 8 bits until the masks of calibration "
        "pictures lose at most X of their IoU with the float model's, such as 0.02",
    )
    parser.add_argument(
        "--target",
        default="native",
        metavar="T[,T...]",
        help="processor to compile for (default: %(default)s); of several, the best one that a machine "
        "can run is chosen when the bundle is loaded",
    )
    parser.add_argument("--tuning", metavar="DIR", type=input_folder, help="records that `tvm-ahcq tune` wrote")
    parser.add_argument(
        "--accelerator",
        metavar="CONFIG",
        help="also make programs for the accelerator of this configuration, such as ecp5_16x16, where "
        "it is faster than a small host; the report says what went where, and why",
    )
    parser.add_argument(
        "--offload",
        choices=("auto", "all"),
        default="auto",
        help="with --accelerator: all that it can do, or what it does sooner than the processor of a "
        "small board (default: %(default)s)",
    )
    parser.add_argument(
        "--chain",
        action="store_true",
        help="with --accelerator: keep the codes between the two layers of an MLP there; less traffic, "
        "but masks can differ a little from the host's, to which they are otherwise equal",
    )
    parser.add_argument(
        "--dump-dir", metavar="D", type=new_folder, help="write modules and tables after each phase to this folder"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print every phase of the pipeline with its time")
    parser.add_argument("--table", metavar="T.json", type=output_file, help="write the quantization table to this file")
    parser.add_argument("-o", "--output", metavar="F.ahcq", type=output_file, required=True, help="bundle to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Import, quantize, compile, save; print what came of each step."""
    _check(args)
    # imported here, so that help and errors come at once
    import tvm_ahcq as ahcq

    recipe = ahcq.recipe(args.recipe or "ahcq", bits=4 if args.bits is None else args.bits)
    calibration, source = calibration_source(args.calibration, args.video)
    from tvm_ahcq.runtime.offload import OffloadReport
    from tvm_ahcq.target import resolve_targets

    if args.accelerator is not None:
        from tvm_ahcq.codegen.isa.config import named

        named(args.accelerator)  # refused before minutes of work
    targets = resolve_targets(args.target)
    model = load_model(args)
    print_model(model)

    start = time.perf_counter()
    with progress_bar("calibrate") as update:
        if args.max_drop is None:
            qmodel = ahcq.quantize(
                model,
                calibration,
                recipe,
                progress=update,
                dump_dir=args.dump_dir,
                effort=args.effort or "default",
                work_dir=args.work_dir,
            )
        else:
            mixed = _mixed(model, calibration, recipe, args.max_drop, update)
            qmodel = mixed.model
    result("calibrate", f"{source}, {duration(time.perf_counter() - start)}")
    if args.verbose:
        _print_phases(qmodel.times)
    if args.max_drop is not None:
        _report_raised(mixed)
    result("table", qmodel.table.summary())
    if args.table is not None:
        qmodel.table.save(args.table)

    start = time.perf_counter()
    with progress_bar("compile"):
        compiled = ahcq.compile(
            qmodel,
            target=targets,
            dump_dir=args.dump_dir,
            tuning=args.tuning,
            accelerator=args.accelerator,
            offload=args.offload,
            chain=args.chain,
        )
    result("compile", f"{', '.join(target.name for target in targets)}, {duration(time.perf_counter() - start)}")
    if args.verbose:
        _print_phases(compiled.times)
    manifest = compiled.save(args.output)
    result("realise", "{}/{} sites on integers; weights {:.2f} bits".format(*manifest.sites, manifest.weight_bits))
    if compiled.manifest.accelerator is not None:
        report = OffloadReport.from_dict(compiled.manifest.accelerator)
        if args.tuning is not None:
            own = report.offloaded()
            result("tuning", f"{sum(place.tuned for place in own)} of {len(own)} programs with tiles of {args.tuning}")
        print_offload(report)
    floats = sum(array.nbytes for array in model.params.values())
    written = args.output.stat().st_size
    result(
        "bundle",
        f"{args.output}  {size(written)}   (float {size(floats)}: {ratio(floats / written, 'smaller', 'larger')})",
    )


def _print_phases(times: Sequence[PhaseTime]) -> None:
    """Print phases of the pipeline with their times."""
    table(("phase", "action", "time"), [(each.name, each.action, duration(each.seconds)) for each in times], texts=2)


def _mixed(model: Any, calibration: Any, recipe: Any, max_drop: float, update: Any) -> Any:
    """Quantize with raised bits; calibration pictures are needed as such."""
    from tvm_ahcq.calibrate.images import load_pictures
    from tvm_ahcq.evaluate.mixed_precision import raise_bits

    pictures = load_pictures(calibration, 32) if isinstance(calibration, Path) else calibration
    return raise_bits(model, pictures, recipe, max_drop, update)


def _report_raised(mixed: Any) -> None:
    """Say what got more bits, by module."""
    drops = " -> ".join(f"{drop:.4f}" for drop in mixed.drops)
    result("max drop", f"1 - IoU with float: {drops}; {len(mixed.raised)} sites and weights raised")
    modules: dict[tuple[str, int], int] = {}
    for name, bits in mixed.raised.items():
        key = ".".join(name.split(".")[:-1]), bits
        modules[key] = modules.get(key, 0) + 1
    for (name, bits), count in modules.items():
        result("", f"{bits} bits: {name} ({count})")


def calibration_source(path: Path | None, video: bool = False) -> tuple[Any, str]:
    """Return the calibration that ``quantize`` takes, and its description for people."""
    if path is None and video:
        return generated_clips(), f"{GENERATED_IMAGES} generated clips of {GENERATED_FRAMES} frames"
    if path is None:
        return generated_images(), f"{GENERATED_IMAGES} generated scenes"
    if path.is_dir():
        return path, str(path)
    from tvm_ahcq.quantizers.core.table import QuantTable

    return QuantTable.load(path), f"taken from {path}"


def generated_images() -> list:
    """The generated scenes that the embedded model is calibrated on, ``(256, 256, 3)`` uint8 RGB each."""
    from tvm_ahcq.scenes import scenes

    return [scene.image for scene in scenes(GENERATED_FIRST_SEED, GENERATED_IMAGES)]


def generated_clips() -> list:
    """The generated clips that the embedded model is calibrated on, ``(T, 256, 256, 3)`` uint8 RGB each."""
    from tvm_ahcq.clips import clips

    return [clip.frames for clip in clips(GENERATED_FIRST_SEED, GENERATED_IMAGES, GENERATED_FRAMES)]


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail only after minutes of work."""
    if args.video:
        check_video("compile", args.model)
    check_weights("compile", args.model, args.checkpoint)
    if not is_embedded(args.model) and args.calibration is None:
        raise UsageError(
            f"compile: {args.model} needs pictures to calibrate on; give a folder of 16 to 32 photos "
            "with --calibration DIR"
        )
    if args.calibration is not None and args.calibration.is_file() and (args.recipe or args.bits is not None):
        raise UsageError(
            f"compile: the table {args.calibration} was made with a recipe of its own; "
            "leave out --recipe and --bits, or calibrate anew on a folder of pictures"
        )
    if args.max_drop is not None and not 0 < args.max_drop < 1:
        raise UsageError(f"compile: --max-drop {args.max_drop:g} is out of range; give a part of 1 such as 0.02")
    given = args.calibration is not None and args.calibration.is_file()
    if given and (args.effort or args.max_drop is not None or args.work_dir):
        raise UsageError(
            f"compile: the table {args.calibration} is taken as it is; leave out --effort, --max-drop and "
            "--work-dir, or calibrate anew on a folder of pictures"
        )
    if args.max_drop is not None and args.effort == "high":
        raise UsageError("compile: --max-drop and --effort high do not go together yet; choose one")
    if args.work_dir is not None and args.effort != "high":
        raise UsageError("compile: --work-dir keeps the blocks of --effort high; add that, or leave it out")
    used = {}
    for path in (args.checkpoint, args.calibration, args.table, args.output):
        if path is None:
            continue
        if path.resolve() in used:
            raise UsageError(f"compile: {path} was given twice; each file needs its own name")
        used[path.resolve()] = path
