"""A model whose weights come along: accuracy in float, compiled modules against their simulation, and what bits cost.

Writes ``benchmarks/results/MODEL.md``. Takes about 15 minutes on 2 cores with one number of bits.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.progress import track

import tvm_ahcq as ahcq
from tvm_ahcq.api import float_predictor
from tvm_ahcq.evaluate.metrics.coin_scores import GOOD_COIN, coin_scores, found_coins
from tvm_ahcq.evaluate.metrics.scene_accuracy import (
    SceneAccuracy,
    SceneMasks,
    mean_iou,
    prompted_objects,
    segment_scene,
)
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import embedded_model, embedded_models, find_model
from tvm_ahcq.scenes import generate, scenes

RESULTS = Path(__file__).parent / "results"

Lines = tuple[list[str], list[str]]
"""Rows of the table, and lines below it."""


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


def coins_line(name: str, predictor) -> str:
    """How many coins a predictor finds."""
    scores = coin_scores(predictor)
    return (
        f"`skimage.data.coins`, {name}: {found_coins(scores)} of {len(scores)} coins with IoU >= {GOOD_COIN} "
        f"from one click (least {scores[0]:.3f}, median {np.median(scores):.3f})."
    )


def compiled_lines(model: FloatModel, bits: int, float_masks: list[SceneMasks], truth: list[np.ndarray]) -> Lines:
    """Quantize, compile, and measure at some bits: rows of the table, and what is told below it."""
    calibration = [scene.image for scene in scenes(500_000, 32)]
    qmodel = ahcq.quantize(model, calibration, ahcq.recipe("ahcq", bits), progress=True)
    with tempfile.TemporaryDirectory() as folder:
        manifest = ahcq.compile(qmodel).save(Path(folder) / "m.ahcq")
        predictor = ahcq.load(Path(folder) / "m.ahcq")
    name, numbers = f"W{bits}A{bits}", range(len(truth))
    simulated = collect(qmodel.fake_quant_predictor(), numbers, f"{name} simulated")
    integer = collect(predictor, numbers, f"{name} compiled")
    table = [
        row(f"{name} compiled against the truth", mean_iou(zip(integer, truth, strict=True))),
        row(f"{name} compiled against {name} simulated in torch", mean_iou(zip(integer, simulated, strict=True))),
        row(f"{name} compiled against float", mean_iou(zip(integer, float_masks, strict=False))),
    ]
    covered, total = manifest.sites
    below = [
        f"{name}: {covered}/{total} sites on integers; {manifest.weight_bits:.2f} bits a quantized weight.",
        coins_line(f"{name} compiled", predictor),
    ]
    return table, below


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=embedded_models(), default=embedded_model(), help="model type")
    parser.add_argument("--bits", type=int, nargs="+", default=[4], help="bits of weights and activations")
    parser.add_argument("--scenes", type=int, default=500, help="unseen scenes for the accuracy in float")
    parser.add_argument("--agreement", type=int, default=100, help="scenes for compiled against simulated")
    args = parser.parse_args()
    model = find_model(args.model)[0].load(args.model, None)
    predictor = float_predictor(model)
    float_masks = collect(predictor, range(args.scenes), "float")
    truth = [prompted_objects(generate(number)).masks for number in range(args.scenes)]
    some_truth = truth[: args.agreement]
    table = [
        row(f"float against the truth, {args.scenes} scenes", mean_iou(zip(float_masks, truth, strict=True))),
        row(f"float against the truth, {args.agreement} scenes", mean_iou(zip(float_masks, some_truth, strict=False))),
    ]
    below = [coins_line("float", predictor)]
    for bits in args.bits:
        rows, remarks = compiled_lines(model, bits, float_masks, some_truth)
        table += rows
        below += remarks
    lines = [
        f"# {args.model}",
        "",
        f"Scenes 0 to {args.scenes - 1}, none of them trained or calibrated on. Mean IoU over objects.",
        "",
        "| masks | one click (best of 3) | one click (single) | box | objects |",
        "|---|---|---|---|---|",
        *table,
        *(part for remark in below for part in ("", remark)),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.model}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
