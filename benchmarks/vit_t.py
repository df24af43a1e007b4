"""The embedded model: accuracy in float, agreement of the compiled 4-bit module with its simulation, cost of 4 bits.

Writes ``benchmarks/results/vit_t.md``. Takes about 15 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.progress import track

import tvm_ahcq as ahcq
from tvm_ahcq.evaluate.datasets.coins import centre, coins
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.evaluate.metrics.scene_accuracy import (
    SceneAccuracy,
    SceneMasks,
    mean_iou,
    prompted_objects,
    segment_scene,
)
from tvm_ahcq.scenes import generate, scenes

RESULTS = Path(__file__).parent / "results" / "vit_t.md"


def coin_scores(predictor) -> list[float]:
    """IoU of a click on the centre of each coin with its thresholded mask."""
    image, masks = coins()
    predictor.set_image(image)
    scores = []
    for mask in masks:
        found, quality, _ = predictor.predict(np.array([centre(mask)]), np.array([1]))
        scores.append(iou(found[quality.argmax()], mask))
    return scores


def collect(predictor, numbers: range, what: str) -> list[SceneMasks]:
    """What a predictor makes of the scenes with these numbers."""
    found = []
    for number in track(numbers, what):
        scene = generate(number)
        found.append(segment_scene(predictor, scene, prompted_objects(scene)))
    return found


def row(name: str, accuracy: SceneAccuracy) -> str:
    """A row of the table."""
    return f"| {name} | {accuracy.click:.4f} | {accuracy.single_click:.4f} | {accuracy.box:.4f} | {accuracy.objects} |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500, help="unseen scenes for the accuracy in float")
    parser.add_argument("--agreement", type=int, default=100, help="scenes for compiled against simulated")
    args = parser.parse_args()
    model = ahcq.from_sam("vit_t")
    calibration = [scene.image for scene in scenes(500_000, 32)]
    qmodel = ahcq.quantize(model, calibration, progress=True)
    with tempfile.TemporaryDirectory() as folder:
        manifest = ahcq.compile(qmodel).save(Path(folder) / "vit_t.ahcq")
        compiled = ahcq.load(Path(folder) / "vit_t.ahcq")
    float_masks = collect(qmodel.float_predictor(), range(args.scenes), "float")
    numbers = range(args.agreement)
    simulated = collect(qmodel.fake_quant_predictor(), numbers, "simulated")
    integer = collect(compiled, numbers, "compiled")
    truth = [prompted_objects(generate(number)).masks for number in range(args.scenes)]
    some_truth = truth[: args.agreement]
    lines = [
        "# vit_t",
        "",
        f"Scenes 0 to {args.scenes - 1}, none of them trained or calibrated on. Mean IoU over objects.",
        "",
        "| masks | one click (best of 3) | one click (single) | box | objects |",
        "|---|---|---|---|---|",
        row(f"float against the truth, {args.scenes} scenes", mean_iou(zip(float_masks, truth, strict=True))),
        row(f"float against the truth, {args.agreement} scenes", mean_iou(zip(float_masks, some_truth, strict=False))),
        row("W4A4 compiled against the truth", mean_iou(zip(integer, some_truth, strict=True))),
        row("W4A4 compiled against W4A4 simulated in torch", mean_iou(zip(integer, simulated, strict=True))),
        row("W4A4 compiled against float", mean_iou(zip(integer, float_masks, strict=False))),
        "",
        "Sites on integers: {}/{}; {:.2f} bits a quantized weight.".format(*manifest.sites, manifest.weight_bits),
        "",
    ]
    for name, predictor in (("float", qmodel.float_predictor()), ("W4A4 compiled", compiled)):
        scores = sorted(coin_scores(predictor))
        good = sum(score >= 0.8 for score in scores)
        lines.append(
            f"`skimage.data.coins`, {name}: {good} of {len(scores)} coins with IoU >= 0.8 from one click "
            f"(least {scores[0]:.3f}, median {np.median(scores):.3f})."
        )
        lines.append("")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
