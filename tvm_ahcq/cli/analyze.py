"""``tvm-ahcq analyze``: which layer hurts when it is quantized, as a report for people and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ahcq.atomic_file import atomic_file

from .arguments import UsageError, input_file, input_path, output_file
from .compile import GENERATED_FIRST_SEED, GENERATED_IMAGES, generated_images
from .console import duration, progress_bar, result, size
from .models import (
    EMBEDDED,
    add_checkpoint_option,
    add_model_option,
    check_weights,
    is_embedded,
    load_model,
    print_model,
)

if TYPE_CHECKING:
    from tvm_ahcq.api import QuantizedModel
    from tvm_ahcq.evaluate.sensitivity.measure import Sensitivity
    from tvm_ahcq.evaluate.sensitivity.probes import Probe

PICTURES = 4
"""Pictures to measure on if nothing else is said."""

WORST = 5
"""Worst parts that are printed."""

PAGE, FIGURES = "report.html", "sensitivity.json"
"""Files of a report folder."""

EXAMPLES = """\
examples:
  the small model that comes along:    tvm-ahcq analyze --model vit_t -o report.html
  your checkpoint:                     tvm-ahcq analyze --model vit_b --checkpoint sam_vit_b_01ec64.pth \\
                                           --calibration photos/ --images other_photos/ -o report.html
  a table from compile, perhaps edited: tvm-ahcq analyze --model vit_t --table vit_t.json -o report.html
  report and figures in a new folder:  tvm-ahcq analyze --model vit_t --bits 6 -o vit_t-w6a6/

How to read it: begin with "What hurts most". Each part was quantized alone there, so a large change of the mask logits
is that part's own doing. Its link leads to the values at that site and the levels that its quantizer offers: bars far
outside the levels are clipped, levels far apart under high bars are coarse. Then raise that site's bits or edit its
entry in the table, and analyze again.

How long it takes: a part costs one run of the model on every picture. `--effect auto` measures each site and weight
where that is expected to take at most 3 minutes (vit_t: 192 runs, about a minute), else each layer, else each block
(vit_b: 15 runs of about a minute for each picture). `--effect none` takes seconds a picture: no effect on the masks.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "analyze",
        help="find the layers that quantization hurts, as an HTML report",
        description="Measure what quantization does to each site, layer and weight of a "
        "model, and write a report that shows which layer hurts.",
        epilog=EXAMPLES,
    )
    add_model_option(parser, required=True)
    add_checkpoint_option(parser)
    parser.add_argument("--recipe", help="which quantizer goes where (default: ahcq)")
    parser.add_argument("--bits", type=int, help="bits of weights and activations (default: 4)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--calibration",
        metavar="DIR",
        type=input_path,
        help=f"folder of pictures to calibrate on; default for {EMBEDDED}: generated scenes",
    )
    source.add_argument(
        "--table",
        metavar="T.json",
        type=input_file,
        help="quantization table from `compile --table`, instead of calibrating",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=input_path,
        help="folder of pictures to measure on, better none that calibration has seen; default: "
        f"the calibration folder, for {EMBEDDED} other generated scenes",
    )
    parser.add_argument(
        "--pictures",
        metavar="N",
        type=int,
        default=PICTURES,
        help="how many pictures to measure on (default: %(default)s)",
    )
    parser.add_argument(
        "--effect",
        choices=("auto", "sites", "layers", "blocks", "none"),
        default="auto",
        help="what is quantized alone to see its effect on the masks (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="REPORT",
        type=Path,
        required=True,
        help=f"NAME.html, or a folder that is made for {PAGE} and {FIGURES}",
    )
    parser.add_argument("--json", metavar="F.json", type=output_file, help="write all figures to this file too")
    parser.add_argument("--overwrite", action="store_true", help="replace a report that exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Quantize, measure, write; print the worst parts."""
    page, figures = _outputs(args)
    _check(args)
    # imported from here on, so that help and errors come at once
    probes, source = _probes(args)
    qmodel = _quantize(args)
    result("pictures", f"{source}, {sum(probe.prompts for probe in probes)} clicks and boxes")
    start = time.perf_counter()
    sensitivity = _measure(qmodel, probes, args.effect)
    result("measured", f"{_granularity(sensitivity)}, {duration(time.perf_counter() - start)}")
    _print(sensitivity)

    from tvm_ahcq.evaluate.report.report import write_report

    page.parent.mkdir(exist_ok=True)
    write_report(sensitivity, page)
    result("report", f"{page}  {size(page.stat().st_size)}")
    for path in figures:
        _write_json(path, sensitivity.to_dict())
        result("figures", str(path))


def _quantize(args: argparse.Namespace) -> QuantizedModel:
    """The model with the quantizers of a table or of a calibration."""
    import tvm_ahcq as ahcq
    from tvm_ahcq.quantizers.core.table import QuantTable

    recipe = ahcq.recipe(args.recipe or "ahcq", bits=4 if args.bits is None else args.bits)
    table = None if args.table is None else QuantTable.load(args.table)
    model = load_model(args)
    print_model(model)
    if table is not None:
        qmodel = ahcq.quantize(model, table)
    else:
        pictures = generated_images() if args.calibration is None else args.calibration
        with progress_bar("calibrate") as update:
            qmodel = ahcq.quantize(model, pictures, recipe, progress=update)
    result("table", qmodel.table.summary())
    return qmodel


def _measure(qmodel: QuantizedModel, probes: list[Probe], effect: str) -> Sensitivity:
    """Measure with a bar that says how long the effects will take."""
    from tvm_ahcq.evaluate.sensitivity.measure import measure

    with progress_bar("errors") as update:
        stage = ["effect"]

        def announce(granularity: str, parts: int, seconds: float) -> None:
            stage[0] = f"effect of {parts} {granularity}, about {duration(seconds)}"

        def progress(what: str, done: int, total: int) -> None:
            update(stage[0] if what == "effect on masks" else what, done, total)

        return measure(qmodel, probes, effect, progress, announce)


def _outputs(args: argparse.Namespace) -> tuple[Path, list[Path]]:
    """The page and the JSON files to write; what exists is refused unless it may be overwritten."""
    output: Path = args.output
    as_page = output.suffix.lower() in (".html", ".htm")
    if as_page and output.is_dir():
        raise UsageError(f"analyze: {output} is a folder; expected the name of a page, or a folder not named .html")
    if not as_page and output.is_file():
        raise UsageError(f"analyze: {output} is a file; expected NAME.html or the name of a folder")
    if output.exists() and not args.overwrite:
        raise UsageError(
            f"analyze: the report {output} exists already; choose another name, or replace it with --overwrite"
        )
    folder = output.parent if as_page or not output.exists() else output
    if not folder.is_dir():
        raise UsageError(f"analyze: {output}: the folder {folder} does not exist; make it with mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"analyze: {output}: no permission to write to the folder {folder}")
    figures = [] if as_page else [output / FIGURES]
    if args.json is not None:
        if args.json.exists() and not args.overwrite:
            raise UsageError(
                f"analyze: {args.json} exists already; choose another name, or replace it with --overwrite"
            )
        if args.json.resolve() == output.resolve():
            raise UsageError(f"analyze: {output} was given twice; report and figures need a name each")
        figures.append(args.json)
    return (output if as_page else output / PAGE), figures


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail only after minutes of work."""
    check_weights("analyze", args.model, args.checkpoint)
    if not is_embedded(args.model) and args.calibration is None and args.table is None:
        raise UsageError(
            f"analyze: {args.model} needs pictures to calibrate on; give a folder with --calibration DIR, "
            "or a table with --table T.json"
        )
    if not is_embedded(args.model) and args.calibration is None and args.images is None:
        raise UsageError(f"analyze: {args.model} needs pictures to measure on; give a folder with --images DIR")
    if args.table is not None and (args.recipe or args.bits is not None):
        raise UsageError(
            f"analyze: the table {args.table} was made with a recipe of its own; leave out --recipe and --bits"
        )
    for name in ("calibration", "images"):
        folder = getattr(args, name)
        if folder is not None and not folder.is_dir():
            hint = "; a table is given with --table" if folder.suffix == ".json" else ""
            raise UsageError(f"analyze: --{name} {folder} is a file; expected a folder of pictures{hint}")
    if args.pictures < 1:
        raise UsageError(f"analyze: --pictures {args.pictures}; expected 1 or more")


def _probes(args: argparse.Namespace) -> tuple[list[Probe], str]:
    """Pictures with prompts to measure on, and what to call them."""
    from tvm_ahcq.evaluate.sensitivity.probes import random_probes, scene_probes

    folder = args.images or args.calibration
    if folder is None:
        from tvm_ahcq.scenes import scenes

        held_out = scenes(GENERATED_FIRST_SEED + GENERATED_IMAGES, args.pictures)
        return scene_probes(held_out), f"{args.pictures} generated scenes that calibration has not seen"
    from tvm_ahcq.calibrate.images import load_pictures

    pictures = load_pictures(folder, args.pictures)
    seen = "" if args.images is not None else " that calibration has seen (others: --images DIR)"
    return random_probes(pictures), f"{len(pictures)} of {folder}{seen}"


def _granularity(sensitivity: Sensitivity) -> str:
    """Return the measured parts, for people."""
    errors = f"errors of {len(sensitivity.sites)} sites and {len(sensitivity.weights)} weights"
    parts = {"sites": "sites and weights"}.get(sensitivity.granularity, sensitivity.granularity)
    return f"{errors}; effect of {len(sensitivity.effects)} {parts}" if sensitivity.effects else errors


def _print(sensitivity: Sensitivity) -> None:
    """Print the agreement of the masks, and the most sensitive parts."""
    overlaps = [pair.iou for pair in sensitivity.masks]
    result(
        "masks",
        f"IoU with the float model's {sum(overlaps) / len(overlaps):.3f}, logits change {sensitivity.total.logits:.2%}",
    )
    if sensitivity.effects:
        worst = [(effect.logits, effect.unit.name, "of the logits, alone") for effect in sensitivity.worst(WORST)]
    else:
        worst = [(layer.error, layer.name, "of its output") for layer in sensitivity.worst_layers(WORST)]
    for place, (value, name, of_what) in enumerate(worst):
        result("worst" if place == 0 else "", f"{value:7.2%} {of_what}: {name}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the figures; the file appears complete or not at all."""
    with atomic_file(path) as file:
        file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
