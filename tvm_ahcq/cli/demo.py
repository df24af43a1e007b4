"""``tvm-ahcq demo``: the whole way once on this machine, with every figure measured."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ahcq.models.registry import embedded_model, embedded_models, find_model

from .arguments import output_folder
from .compile import generated_images
from .console import duration, progress_bar, ratio, result, size

if TYPE_CHECKING:
    import numpy as np

CLICK = (213, 191)
"""A click on one of the coins, x and y in pixels."""

ANOTHER_CLICK = "345,187"
"""A click that the last line proposes to try."""

BUSY = 0.5
"""Load above one running thread for each processor from which on the times are called into question."""

REPEATS = 5
"""Runs of each predictor, of which the fastest is shown, after one to warm up."""

EXAMPLES = """\
example:
  tvm-ahcq demo --out-dir /tmp

Writes MODEL-w4a4.ahcq (the compiled model), coins.png (the photo) and demo.png (the photo with the mask drawn in).
Nothing is downloaded: weights, calibration scenes and photo come with the packages.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "demo",
        help="compile the small model that comes along and segment a photo",
        description="Compile the small model that comes along at 4 bits, segment a photo, and say what that took.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--model",
        choices=embedded_models(),
        default=embedded_model(),
        help="which of the small models (default: %(default)s)",
    )
    parser.add_argument(
        "--out-dir",
        metavar="DIR",
        type=output_folder,
        default=Path("."),
        help="folder to write to (default: the current one)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Quantize, compile, save, load, segment, compare with the float model, draw."""
    bundle, photo, picture = (args.out_dir / name for name in (f"{args.model}-w4a4.ahcq", "coins.png", "demo.png"))
    _compile(args.model, bundle)

    import numpy as np
    from PIL import Image
    from skimage import data

    from tvm_ahcq.evaluate.metrics.iou import iou
    from tvm_ahcq.runtime.load import load
    from tvm_ahcq.runtime.overlay import save_overlay
    from tvm_ahcq.runtime.threads import thread_count

    image = np.repeat(data.coins()[..., None], 3, axis=2)
    Image.fromarray(image).save(photo)
    predictors = load(bundle), _torch_predictor(args.model, thread_count(None))
    (mask, float_mask), (seconds, float_seconds) = _segment(predictors, image)
    click = ",".join(map(str, CLICK))
    result(
        "segment",
        f"{photo.name}, click {click}: {duration(seconds)}   "
        f"(torch float {duration(float_seconds)}: {ratio(float_seconds / seconds, 'faster', 'slower')})",
    )
    load_average, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load_average > processors + BUSY:
        result(
            "note",
            f"other programs were running (load {load_average:.1f} on {processors} CPUs): "
            "these times say little, run it again on an idle machine",
        )
    result("agreement", f"IoU with the float model {iou(mask, float_mask):.2f}")
    save_overlay(picture, image, mask, np.array([CLICK]), np.array([1]))
    result("picture", str(picture))
    print(f"next: tvm-ahcq segment {bundle} {photo} --point {ANOTHER_CLICK} -o {args.out_dir / 'segmented.png'}")


def _compile(name: str, bundle: Path) -> None:
    """Quantize and compile an embedded model to `bundle`; print what came of each step."""
    import tvm_ahcq as ahcq
    from tvm_ahcq.runtime.threads import thread_count
    from tvm_ahcq.target import resolve_target

    model = find_model(name)[0].load(name, None)
    result("model", f"{name} (embedded), {model.spec.input_text}, W4A4, recipe ahcq")
    result("target", f"{resolve_target('native').name}, {thread_count(None)} threads")
    images = generated_images()
    with progress_bar("calibrate") as update:
        qmodel, seconds = _timed(lambda: ahcq.quantize(model, images, ahcq.recipe("ahcq", bits=4), progress=update))
    result("calibrate", f"{len(images)} images, {duration(seconds)}")
    with progress_bar("compile"):
        compiled, seconds = _timed(lambda: ahcq.compile(qmodel, target="native"))
    manifest = compiled.save(bundle)
    result("realise", "{}/{} sites on integers; ".format(*manifest.sites) + f"weights {manifest.weight_bits:.2f} bits")
    result("compile", duration(seconds))
    floats = sum(array.nbytes for array in model.params.values())
    written = bundle.stat().st_size
    result(
        "bundle", f"{bundle}  {size(written)}   (float {size(floats)}: {ratio(floats / written, 'smaller', 'larger')})"
    )


def _torch_predictor(name: str, threads: int) -> Any:
    """Upstream's own predictor with the same weights in float, on as many threads: what there is to compare with."""
    import torch

    torch.set_num_threads(threads)
    family, variant = find_model(name)
    assert family.timing is not None and variant.weights is not None
    return family.timing.upstream_predictor(name, variant.weights)


def _segment(predictors: Sequence[Any], image: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Mask of the click and the least time from picture to mask in seconds, of each predictor.

    They take turns, so that what else the machine does meets them alike.
    """
    import numpy as np

    def once(predictor: Any) -> np.ndarray:
        predictor.set_image(image)
        masks, _, _ = predictor.predict(np.array([CLICK]), np.array([1]), multimask_output=False)
        return masks[0]

    masks = [once(predictor) for predictor in predictors]
    rounds = [[_timed(partial(once, predictor))[1] for predictor in predictors] for _ in range(REPEATS)]
    return masks, [min(times) for times in zip(*rounds, strict=True)]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call, and the seconds it took."""
    start = time.perf_counter()
    value = work()
    return value, time.perf_counter() - start
