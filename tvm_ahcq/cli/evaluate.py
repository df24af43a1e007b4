"""``tvm-ahcq eval``: how accurate models are on annotated pictures and videos."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ahcq.models.registry import model_names

from . import evaluate_video
from .arguments import (
    UsageError,
    add_device_options,
    count,
    device_options,
    input_file,
    input_folder,
    input_path,
    output_file,
)
from .compile import calibration_source
from .console import duration, progress_bar, result, table
from .evaluate_data import Accuracy, EvaluationData
from .models import EMBEDDED, add_checkpoint_option, add_model_option, check_weights, is_embedded, load_model

if TYPE_CHECKING:
    from tvm_ahcq.evaluate.metrics.variants import Variant

FLOAT, FAKE_QUANT = "float", "fake-quant"
"""Models that are not in a bundle, as they are typed."""

EXAMPLES = """\
examples:
  mean IoU, photos with masks:     tvm-ahcq eval sam_b.ahcq --images photos/ --masks masks/
  COCO mask AP, annotated boxes:   tvm-ahcq eval sam_b.ahcq --images val2017/ --coco instances_val2017.json
  ... from a detector's boxes:     tvm-ahcq eval sam_b.ahcq --images val2017/ --coco instances_val2017.json \\
                                       --detections yolox_results.json
  what 4 bits cost:                tvm-ahcq eval float sam_b.ahcq --model vit_b --checkpoint sam_vit_b_01ec64.pth \\
                                       --images photos/ --masks masks/ --json accuracy.json
  before compiling:                tvm-ahcq eval float fake-quant --model vit_b --checkpoint sam_vit_b_01ec64.pth \\
                                       --calibration other_photos/ --images photos/ --masks masks/
  without data of your own:        tvm-ahcq scenes try/ && tvm-ahcq eval float fake-quant --model vit_t \\
                                       --images try/images --masks try/masks

Folders: photos/a.jpg belongs to masks/a.png. A mask has the size of its picture; 0 is background, every other value an
object (so 0 and 255, or 0 and 1, is one object). An object is prompted by a click on its pixel furthest from its
border, or by a tight box. Reported is the mean IoU over all objects: for a click, of three masks the one that the model
scores best, and also the single mask of multimask_output=False; for a box, the single mask.

COCO: a box gives one mask. With annotated boxes, crowds are left out and the model's predicted IoU ranks the masks;
with --detections, the detector's score does. pycocotools computes AP; pip install 'tvm-ahcq[eval]' brings it along.

A quantized model is refused unless all of its quantization sites are on integers. Evaluate on pictures that calibration
has not seen.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "eval",
        help="measure accuracy on annotated pictures and videos",
        description="Measure how accurate models are: mean IoU on pictures with masks, mask AP on COCO files, J&F on "
        "videos.",
        epilog=f"{EXAMPLES}\n{evaluate_video.EXAMPLES}",
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        type=_model,
        help=f"a bundle F.ahcq, `{FLOAT}` (--model in torch, float32) or `{FAKE_QUANT}` (--model "
        "quantized, simulated in torch); several are compared",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--images", metavar="DIR", type=input_folder, help="folder of pictures")
    truth = data.add_mutually_exclusive_group(required=True)
    truth.add_argument("--masks", metavar="DIR", type=input_folder, help="folder of masks, named as the pictures")
    truth.add_argument("--coco", metavar="F.json", type=input_file, help="COCO instance file")
    truth.add_argument(
        "--vos", metavar="DIR", type=input_folder, help="videos with masks, as DAVIS 2017, SA-V or MOSE lay them out"
    )
    data.add_argument(
        "--detections",
        metavar="F.json",
        type=input_file,
        help="boxes of a detector, in COCO's result format (default: the annotated boxes)",
    )
    data.add_argument(
        "--prompt",
        choices=("click", "box", "both", "mask"),
        help="how an object is shown; with --masks (default: both), and with --vos (default: mask)",
    )
    data.add_argument(
        "--void",
        metavar="VALUE",
        type=int,
        help="pixels of this value in a mask are neither object nor background; Pascal VOC: 255",
    )
    data.add_argument("--limit", metavar="N", type=count, help="only the first N pictures or videos")
    evaluate_video.add_options(parser)
    torch = parser.add_argument_group(f"{FLOAT} and {FAKE_QUANT}")
    add_model_option(torch, required=False)
    add_checkpoint_option(torch)
    torch.add_argument("--recipe", help=f"{FAKE_QUANT}: which quantizer goes where (default: ahcq)")
    torch.add_argument("--bits", type=int, help=f"{FAKE_QUANT}: bits of weights and activations (default: 4)")
    torch.add_argument(
        "--calibration",
        metavar="DIR",
        type=input_path,
        help=f"{FAKE_QUANT}: folder of pictures, or a table from `compile --table`; default for "
        f"{EMBEDDED}: generated scenes",
    )
    add_device_options(parser)
    parser.add_argument("--json", metavar="OUT.json", type=output_file, help="write all figures to this file too")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Measured:
    """Accuracy of one variant, and the seconds it took, loading included."""

    variant: Variant
    accuracy: Accuracy
    seconds: float


def run(args: argparse.Namespace) -> None:
    """Check everything, then measure model by model; print the table of those that got done, come what may."""
    _check(args)
    # imported from here on, so that help and errors come at once
    recipe = _recipe(args)
    bundles = _bundles(args)
    data = _data(args)
    result("data", data.text)
    result("scored", data.scored)
    variants = _variants(args, bundles, recipe)
    done: list[_Measured] = []
    try:
        for variant in variants:
            done.append(_measure(data, variant))
            if args.json is not None:
                args.json.write_text(json.dumps(_report(data, done), indent=1) + "\n")
    finally:
        _print(done)
    if args.json is not None:
        result("written", str(args.json))


def _measure(data: EvaluationData, variant: Variant) -> _Measured:
    start = time.perf_counter()
    with progress_bar(variant.name) as update:

        def report(_: str, done: int, total: int) -> None:
            update(variant.name, done, total)

        accuracy = data.measure(variant, report)
    return _Measured(variant, accuracy, time.perf_counter() - start)


def _print(done: list[_Measured]) -> None:
    """The table, and how much of the float model's accuracy (else the first model's) the others keep."""
    if not done:
        return
    result("counted", done[0].accuracy.summary())
    rows = []
    for each in done:
        sites = "-" if each.variant.sites is None else "{}/{}".format(*each.variant.sites)
        figures = ["-" if value is None else f"{value:.4f}" for value in each.accuracy.figures().values()]
        rows.append([each.variant.name, each.variant.numbers, sites, *figures, duration(each.seconds)])
    table(["model", "numbers", "sites", *done[0].accuracy.figures(), "time"], rows, texts=2)
    reference = next((each for each in done if each.variant.name == FLOAT), done[0])
    for each in done:
        if each is not reference:
            figures_of = each.accuracy.figures()
            kept = [
                f"{name} {own / value:.1%}"
                for name, value in reference.accuracy.figures().items()
                if value and not name.startswith("AP_") and (own := figures_of[name]) is not None
            ]
            result("kept", f"{each.variant.name}, of {reference.variant.name}: {', '.join(kept)}")


def _report(data: EvaluationData, done: list[_Measured]) -> dict[str, Any]:
    """Return the content of the ``--json`` file."""
    return {
        "data": data.content,
        "models": [
            {
                "name": each.variant.name,
                "model": each.variant.model,
                "numbers": each.variant.numbers,
                "sites": each.variant.sites,
                "seconds": round(each.seconds, 3),
                "accuracy": each.accuracy.to_dict(),
            }
            for each in done
        ],
    }


def _data(args: argparse.Namespace) -> EvaluationData:
    if args.vos is not None:
        return evaluate_video.video_data(args)
    return _masks(args) if args.coco is None else _coco(args)


def _masks(args: argparse.Namespace) -> EvaluationData:
    from tvm_ahcq.evaluate.datasets.mask_folder import read_mask_folder
    from tvm_ahcq.evaluate.metrics.mask_accuracy import PROMPTS, mask_accuracy

    folder = read_mask_folder(args.images, args.masks, args.limit)
    prompts = PROMPTS if args.prompt in (None, "both") else (args.prompt,)
    left_out = f" ({folder.unmasked} without a mask left out)" if folder.unmasked else ""
    content = {
        "images": str(args.images),
        "masks": str(args.masks),
        "pictures": len(folder.pairs),
        "unmasked": folder.unmasked,
        "prompts": list(prompts),
        "void": args.void,
    }
    return EvaluationData(
        f"{args.images}, {args.masks}: {len(folder.pairs)} pictures{left_out}",
        f"mean IoU over objects, prompted by {' and by '.join(prompts)}",
        content,
        lambda variant, update: mask_accuracy(variant.open(), folder, prompts, args.void, update),
    )


def _coco(args: argparse.Namespace) -> EvaluationData:
    from tvm_ahcq.evaluate.datasets.coco import read_coco, read_detections
    from tvm_ahcq.evaluate.metrics.coco_accuracy import coco_accuracy

    coco = read_coco(args.coco, args.images, args.limit)
    detections = None if args.detections is None else read_detections(args.detections, coco)
    crowds = sum(each.crowd for each in coco.objects)
    objects = len(coco.objects) - crowds
    source = (
        f"{objects} annotated boxes, ranked by predicted IoU"
        if detections is None
        else f"{len(detections)} boxes from {args.detections}, ranked by its score"
    )
    note = f" ({coco.unmasked} annotations without a mask count as crowds)" if coco.unmasked else ""
    content = {
        "images": str(args.images),
        "coco": str(args.coco),
        "pictures": len(coco.images),
        "objects": objects,
        "crowds": crowds,
        "unmasked": coco.unmasked,
        "detections": None if args.detections is None else str(args.detections),
    }
    return EvaluationData(
        f"{args.coco}: {len(coco.images)} pictures, {objects} objects, crowds: {crowds}{note}",
        f"COCO mask AP from {source}",
        content,
        lambda variant, update: coco_accuracy(variant.open(), coco, detections, update),
    )


def _bundles(args: argparse.Namespace) -> dict[Path, Variant]:
    """All bundles, read and checked before anything that takes long."""
    from tvm_ahcq.evaluate.metrics.variants import compiled

    device = device_options(args)
    video = args.vos is not None
    return {path: compiled(path, device=device, video=video) for path in args.models if isinstance(path, Path)}


def _recipe(args: argparse.Namespace) -> Any:
    """The recipe that was asked for, None where a table brings its own."""
    if FAKE_QUANT not in args.models or (args.calibration is not None and args.calibration.is_file()):
        return None
    from tvm_ahcq.quantizers.core.recipe import recipe

    return recipe(args.recipe or "ahcq", bits=4 if args.bits is None else args.bits)


def _variants(args: argparse.Namespace, bundles: dict[Path, Variant], recipe: Any) -> list[Variant]:
    """The models in the order in which they were typed; torch and the compiler are loaded for those that need them."""
    if len(bundles) == len(args.models):
        return list(bundles.values())
    import tvm_ahcq as ahcq
    from tvm_ahcq.evaluate.metrics.variants import fake_quant, float_model

    args.video = args.vos is not None
    model = load_model(args)
    variants = []
    for name in args.models:
        if isinstance(name, Path):
            variants.append(bundles[name])
        elif name == FLOAT:
            variants.append(float_model(model))
        else:
            calibration, source = calibration_source(args.calibration, args.video)
            start = time.perf_counter()
            with progress_bar("calibrate") as update:
                qmodel = ahcq.quantize(model, calibration, recipe, progress=update)
            result("calibrate", f"{source}, {duration(time.perf_counter() - start)}")
            variants.append(fake_quant(qmodel))
    return variants


def _model(text: str) -> str | Path:
    """A name in the place of a bundle, or a bundle."""
    if text in (FLOAT, FAKE_QUANT):
        return text
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file; expected a bundle, `{FLOAT}` or `{FAKE_QUANT}`")
    return input_file(text)


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before any work starts."""
    evaluate_video.check(args)
    if args.images is None and args.vos is None:
        raise UsageError("eval: --images DIR is missing, the pictures of --masks or --coco")
    if args.detections is not None and args.coco is None:
        raise UsageError("eval: --detections needs --coco F.json, the annotation to compare with")
    for option in ("prompt", "void"):
        if args.coco is not None and getattr(args, option) is not None:
            raise UsageError(f"eval: --{option} is for --masks; with --coco, prompts are boxes")
    if len(set(args.models)) < len(args.models):
        raise UsageError("eval: a model was given twice")
    in_torch = [name for name in args.models if isinstance(name, str)]
    for option in ("model", "checkpoint", "recipe", "bits", "calibration"):
        users = (FLOAT, FAKE_QUANT) if option in ("model", "checkpoint") else (FAKE_QUANT,)
        if getattr(args, option) is not None and not set(users) & set(in_torch):
            raise UsageError(f"eval: --{option} is for {' and '.join(users)}; a bundle has its own")
    if in_torch:
        _check_torch(args, in_torch)
    inputs = [args.coco, args.detections, args.video_list, args.checkpoint, args.calibration, *args.models]
    if args.json is not None and args.json.resolve() in [each.resolve() for each in inputs if isinstance(each, Path)]:
        raise UsageError(f"eval: {args.json} is an input; --json would overwrite it")


def _check_torch(args: argparse.Namespace, in_torch: list[str]) -> None:
    if args.model is None:
        raise UsageError(f"eval: {in_torch[0]} of which model? say --model NAME, one of {', '.join(model_names())}")
    check_weights("eval", args.model, args.checkpoint)
    if FAKE_QUANT not in in_torch:
        return
    if not is_embedded(args.model) and args.calibration is None:
        raise UsageError(
            f"eval: {args.model} needs pictures to calibrate on; give a folder of 16 to 32 photos with "
            "--calibration DIR, or a table from `tvm-ahcq compile --table`"
        )
    if args.calibration is not None and args.calibration.is_file() and (args.recipe or args.bits is not None):
        raise UsageError(
            f"eval: the table {args.calibration} was made with a recipe of its own; "
            "leave out --recipe and --bits, or calibrate anew on a folder of pictures"
        )
