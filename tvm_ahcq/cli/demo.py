"""``tvm-ahcq demo``: the whole way once on this machine, with every figure measured."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import output_folder
from .compile import EMBEDDED, generated_images
from .console import duration, progress_bar, result, size

if TYPE_CHECKING:
    import numpy as np

CLICK = (213, 191)
"""A click on one of the coins, x and y in pixels."""

REPEATS = 5
"""Runs of which the median time is shown, after one to warm up."""

EXAMPLES = """\
example:
  tvm-ahcq demo --out-dir /tmp

Writes vit_t-w4a4.ahcq (the compiled model), coins.png (the photo) and demo.png (the photo with the mask drawn in).
Nothing is downloaded: weights, calibration scenes and photo come with the packages.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "demo", help="compile the small model that comes along and segment a photo",
        description="Compile the small model that comes along at 4 bits, segment a photo, and say what that took.",
        epilog=EXAMPLES)
    parser.add_argument("--out-dir", metavar="DIR", type=output_folder, default=Path("."),
                        help="folder to write to (default: the current one)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Quantize, compile, save, load, segment, compare with the float model, draw."""
    bundle, photo, picture = (args.out_dir / name for name in (f"{EMBEDDED}-w4a4.ahcq", "coins.png", "demo.png"))
    qmodel = _compile(bundle)

    import numpy as np
    from PIL import Image
    from skimage import data

    from ..evaluate.metrics import iou
    from ..runtime.overlay import overlay
    from ..runtime.predictor import load

    image = np.repeat(data.coins()[..., None], 3, axis=2)
    Image.fromarray(image).save(photo)
    mask, seconds = _segment(load(bundle), image)
    float_mask, float_seconds = _segment(qmodel.float_predictor(), image)
    result("segment", f"{photo.name}, click {CLICK}: {duration(seconds)}   "
                      f"(torch float {duration(float_seconds)}: {float_seconds / seconds:.1f}x)")
    result("agreement", f"IoU with the float model {iou(mask, float_mask):.2f}")
    Image.fromarray(overlay(image, mask, np.array([CLICK]), np.array([1]))).save(picture)
    result("picture", str(picture))
    print(f"next: tvm-ahcq segment {bundle} {photo} --point 345,187 -o segmented.png")


def _compile(bundle: Path) -> Any:
    """Quantize and compile the embedded model to `bundle`; returns the quantized model."""
    import tvm_ahcq as ahcq

    from ..runtime.bundle import read_bundle
    from ..runtime.cpu import default_threads
    from ..target import resolve_target

    model = ahcq.from_sam(EMBEDDED)
    result("model", f"{EMBEDDED} (embedded), {model.image_size}x{model.image_size}, W4A4, recipe ahcq")
    target = resolve_target("native")
    result("target", f"{target.name} ({', '.join(target.cpu_features) or 'baseline'}), {default_threads()} threads")

    images = generated_images()
    with progress_bar("calibrate") as update:
        qmodel, seconds = _timed(lambda: ahcq.quantize(model, images, ahcq.recipe("ahcq", bits=4), progress=update))
    result("calibrate", f"{len(images)} images, {duration(seconds)}")
    with progress_bar("compile"):
        compiled, seconds = _timed(lambda: ahcq.compile(qmodel, target="native"))
    compiled.save(bundle)
    weight_bits = read_bundle(bundle).manifest.weight_bits
    result("realise", "{}/{} sites on integers; ".format(*qmodel.sites) + f"weights {weight_bits:.2f} bits")
    result("compile", duration(seconds))
    floats = sum(array.nbytes for array in model.params.values())
    written = bundle.stat().st_size
    result("bundle", f"{bundle}  {size(written)}   (float {size(floats)}: {floats / written:.1f}x smaller)")
    return qmodel


def _segment(predictor: Any, image: np.ndarray) -> tuple[np.ndarray, float]:
    """Mask of the click and the median time from picture to mask, in seconds."""
    import numpy as np

    def once() -> np.ndarray:
        predictor.set_image(image)
        masks, _, _ = predictor.predict(np.array([CLICK], np.float32), np.array([1]), multimask_output=False)
        return masks[0]

    once()
    runs = [_timed(once) for _ in range(REPEATS)]
    return runs[0][0], statistics.median(seconds for _, seconds in runs)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call, and the seconds it took."""
    start = time.perf_counter()
    value = work()
    return value, time.perf_counter() - start
