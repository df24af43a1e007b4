"""``tvm-ahcq compile``: a checkpoint and calibration pictures in, one deployable file out."""

from __future__ import annotations

import argparse
import time

from .arguments import UsageError, input_file, input_folder, new_folder, output_file
from .console import duration, progress_bar, result, size

MODELS = ("vit_t", "vit_b", "vit_l", "vit_h")
"""As in ``tvm_ahcq.frontend``, which is not imported here: that takes seconds."""

EMBEDDED = "vit_t"
"""The model whose weights come with the package."""

GENERATED_IMAGES, GENERATED_FIRST_SEED = 16, 500_000
"""Scenes to calibrate the embedded model on; their seeds are used for neither training nor evaluation."""

EXAMPLES = """\
examples:
  the small model that comes along:   tvm-ahcq compile --model vit_t -o vit_t.ahcq
  SAM ViT-B from its checkpoint:      tvm-ahcq compile --model vit_b --checkpoint sam_vit_b_01ec64.pth \\
                                          --calibration photos/ -o sam_b.ahcq
  for any x86-64 machine:             tvm-ahcq compile --model vit_t --target generic -o vit_t.ahcq
  keep what calibration found:        tvm-ahcq compile --model vit_t --table vit_t.json -o vit_t.ahcq

Calibration sees only the pictures, no annotation; 16 to 32 photos like those that the model will meet are enough.
The file runs with `tvm-ahcq segment` or, in Python, tvm_ahcq.load(...), without torch.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("compile", help="compile a checkpoint to one deployable file",
                                 description="Quantize a SAM checkpoint and compile it to one deployable file.",
                                 epilog=EXAMPLES)
    parser.add_argument("--model", required=True, choices=MODELS, metavar="NAME",
                        help=f"one of {', '.join(MODELS)}; {EMBEDDED} comes with the package")
    parser.add_argument("--checkpoint", metavar="F", type=input_file,
                        help="the model's weights, a .pth as SAM publishes them")
    parser.add_argument("--recipe", default="ahcq", help="which quantizer goes where (default: %(default)s)")
    parser.add_argument("--bits", type=int, default=4, help="bits of weights and activations (default: %(default)s)")
    parser.add_argument("--calibration", metavar="DIR", type=input_folder,
                        help=f"folder of pictures; default for {EMBEDDED}: {GENERATED_IMAGES} generated scenes")
    parser.add_argument("--target", default="native", help="processor to compile for (default: %(default)s)")
    parser.add_argument("--dump-dir", metavar="D", type=new_folder,
                        help="write the module after each pass to this folder")
    parser.add_argument("--table", metavar="T.json", type=output_file, help="write the quantization table to this file")
    parser.add_argument("-o", "--output", metavar="F.ahcq", type=output_file, required=True, help="bundle to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Import, quantize, compile, save; print what came of each step."""
    _check(args)
    # imported here, so that help and errors come at once
    import tvm_ahcq as ahcq

    recipe = ahcq.recipe(args.recipe, bits=args.bits)
    from ..target import resolve_target

    target = resolve_target(args.target)
    model = ahcq.from_sam(args.model, checkpoint=args.checkpoint)
    side = model.image_size
    result("model", f"{args.model}, {side}x{side}, W{args.bits}A{args.bits}, recipe {args.recipe}")

    start = time.perf_counter()
    with progress_bar("calibrate") as update:
        images = generated_images() if args.calibration is None else args.calibration
        qmodel = ahcq.quantize(model, calibration=images, recipe=recipe, progress=update)
    result("calibrate", f"{'generated scenes' if args.calibration is None else args.calibration}, "
                        f"{duration(time.perf_counter() - start)}")
    if args.table is not None:
        qmodel.table.save(args.table)
        result("table", str(args.table))

    start = time.perf_counter()
    compiled = ahcq.compile(qmodel, target=args.target, dump_dir=args.dump_dir)
    result("compile", f"{target.name}, {duration(time.perf_counter() - start)}")
    result("sites", "{}/{} on integers".format(*qmodel.sites))
    compiled.save(args.output)
    floats = sum(array.nbytes for array in model.params.values())
    written = args.output.stat().st_size
    result("bundle", f"{args.output}  {size(written)}   (float {size(floats)}: {floats / written:.1f}x smaller)")


def generated_images() -> list:
    """The generated scenes that the embedded model is calibrated on, ``(256, 256, 3)`` uint8 RGB each."""
    from ..evaluate.scenes import scenes

    return [scene.image for scene in scenes(GENERATED_FIRST_SEED, GENERATED_IMAGES)]


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail only after minutes of work."""
    if args.model != EMBEDDED and args.checkpoint is None:
        raise UsageError(f"compile: {args.model} comes without weights; give its checkpoint with --checkpoint F "
                         f"(only {EMBEDDED} is part of the package)")
    if args.model != EMBEDDED and args.calibration is None:
        raise UsageError(f"compile: {args.model} needs pictures to calibrate on; give a folder of 16 to 32 photos "
                         "with --calibration DIR")
    used = {}
    for path in (args.checkpoint, args.table, args.output):
        if path is None:
            continue
        if path.resolve() in used:
            raise UsageError(f"compile: {path} was given twice; each file needs its own name")
        used[path.resolve()] = path
