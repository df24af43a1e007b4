"""The accuracy study: recipes and bits on vit_t and on a vit_t made hard to quantize, over seeds of calibration scenes.

Every cell (model, recipe, bits, seed) is quantized, compiled, and segments unseen scenes with the compiled module;
cells are kept in ``benchmarks/results/accuracy.json`` as they finish, so a run that was stopped goes on, and the table
``benchmarks/results/accuracy.md`` is written anew after each. A cell takes about 2 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import tvm_ahcq as ahcq
from tvm_ahcq.api import float_predictor
from tvm_ahcq.evaluate.hard_model import HARD, harden
from tvm_ahcq.evaluate.metrics.scene_accuracy import (
    PromptedObjects,
    SceneMasks,
    mean_iou,
    prompted_objects,
    segment_scene,
)
from tvm_ahcq.evaluate.sensitivity.measure import measure as measure_sensitivity
from tvm_ahcq.evaluate.sensitivity.probes import scene_probes
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.scenes import Scene, scenes

FOLDER = Path(__file__).parent / "results"
CALIBRATION_SCENES, FIRST_CALIBRATION, FIRST_UNSEEN = 16, 500_000, 3_000_000
MAIN = ("ahcq", "paper", "ptq4sam", "minmax")
ABLATIONS = ("ahcq-no-acnr", "ahcq-no-hluq", "ahcq-no-cag", "ahcq-lnq", "ahcq-no-lnq", "ahcq-no-equalise")
HIGH = "ahcq, high effort"
WAYS = ("click", "single_click", "box")


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    model: str
    recipe: str
    bits: int
    seed: int

    @property
    def key(self) -> str:
        """Name in the file of results."""
        return f"{self.model}/{self.recipe}/{self.bits}/{self.seed}"


def cells(seeds: int) -> Iterator[Cell]:
    """What is measured, the most telling first."""
    for seed in range(seeds):
        for model in ("vit_t", "vit_t-hard"):
            yield from (Cell(model, recipe, 4, seed) for recipe in MAIN)
        yield from (Cell("vit_t", recipe, 6, seed) for recipe in MAIN)
    yield Cell("vit_t", HIGH, 4, 0)
    for seed in range(seeds):
        for model in ("vit_t-hard", "vit_t"):
            yield from (Cell(model, recipe, 4, seed) for recipe in ABLATIONS)
        for bits in (8, 5):
            yield from (Cell("vit_t", recipe, bits, seed) for recipe in MAIN)


def model_of(name: str, seed: int) -> FloatModel:
    """vit_t, or its hard form (its random numbers change with the seed as well)."""
    model = ahcq.from_sam("vit_t")
    return model if name == "vit_t" else harden(model, HARD, seed)


def measure(cell: Cell, unseen: list[Unseen], in_float: list[SceneMasks]) -> dict[str, float]:
    """Mean IoU with the truth and with the float model's masks, over the scenes."""
    model = model_of(cell.model, cell.seed)
    calibration = [s.image for s in scenes(FIRST_CALIBRATION + 1000 * cell.seed, CALIBRATION_SCENES)]
    start = time.perf_counter()
    name, _, effort = cell.recipe.partition(", ")
    effort = effort.removesuffix(" effort") or "default"
    qmodel = ahcq.quantize(model, calibration, ahcq.recipe(name, cell.bits), effort=effort)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        manifest = ahcq.compile(qmodel).save(Path(folder) / "m.ahcq")
        predictor = ahcq.load(Path(folder) / "m.ahcq")
        masks = [segment_scene(predictor, *found) for found in unseen]
    covered, total = manifest.sites
    if covered < total:
        raise SystemExit(f"{cell.key}: only {covered}/{total} sites are quantized")
    wanted = (objects.masks for _, objects in unseen)
    truth, agreement = mean_iou(zip(masks, wanted, strict=True)), mean_iou(zip(masks, in_float, strict=True))
    return {
        **{way: getattr(truth, way) for way in WAYS},
        **{f"{way}_float": getattr(agreement, way) for way in WAYS},
        "seconds": seconds,
    }


Unseen = tuple[Scene, PromptedObjects]
"""A scene that no calibration saw, and what is asked about it."""


def layer_rows() -> list[list[str]]:
    """Of vit_t, recipe "ahcq" at 4 bits: what each layer costs when it alone is quantized, the worst first."""
    calibration = [s.image for s in scenes(FIRST_CALIBRATION, CALIBRATION_SCENES)]
    qmodel = ahcq.quantize(ahcq.from_sam("vit_t"), calibration, ahcq.recipe("ahcq", 4))
    found = measure_sensitivity(qmodel, scene_probes(list(scenes(FIRST_UNSEEN, 2))), effect="layers")
    layers = {layer.name: layer for layer in found.layers}
    sites = {site.name: site for site in found.sites}
    weights = {weight.layer: weight for weight in found.weights}
    rows = []
    for effect in found.worst():
        layer, weight = layers[effect.unit.name], weights.get(effect.unit.name)
        numbers = () if weight is None else (weight.condition_before, weight.condition_after)
        rows.append(
            [
                layer.name,
                ", ".join(sorted({sites[name].params.kind for name in layer.sites})),
                f"{min(sites[name].sqnr for name in layer.sites):.1f}",
                "" if weight is None else f"{weight.sqnr:.1f}",
                f"{layer.error:.2%}",
                f"{effect.logits:.2%}",
                f"{effect.iou_loss:.4f}",
                " → ".join(f"{number:.3g}" for number in numbers if number is not None),
            ]
        )
    return rows


Results = dict[str, dict[str, float]]
"""Figures by the key of their cell."""


def table(results: Results, reference: dict[str, float], model: str, wanted: list[tuple]) -> list[str]:
    """Rows of one table: per cent of the float model's mean IoU, mean and spread (half the range) over seeds."""
    lines = [
        "| recipe | bits | seeds | click, best of 3 | click, 1 mask | box | IoU with float (box) |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe, bits in wanted:
        found = [r for key, r in results.items() if key.rsplit("/", 1)[0] == f"{model}/{recipe}/{bits}"]
        if not found:
            continue
        parts = []
        for way in WAYS:
            kept = 100 * np.array([r[way] for r in found]) / reference[way]
            parts.append(f"{kept.mean():.1f}" + (f" ± {np.ptp(kept) / 2:.1f}" if len(kept) > 1 else ""))
        agreement = np.mean([r["box_float"] for r in found])
        lines.append(f"| {recipe} | {bits} | {len(found)} | {' | '.join(parts)} | {agreement:.3f} |")
    return lines


def verdicts(results: Results, reference: dict[str, float], model: str) -> list[str]:
    """For each part, what leaving it out costs: over the seeds and ways to prompt that both were measured with."""
    lines = []
    for name in ABLATIONS:
        costs = [
            100 * (found[way] - results[without][way]) / reference[way]
            for without in results
            if without.startswith(f"{model}/{name}/4/")
            and (found := results.get(without.replace(name, "ahcq"))) is not None
            for way in WAYS
        ]
        if costs:
            least, most = min(costs), max(costs)
            says = "it helps" if least > 0 else "it hurts" if most < 0 else "no difference shown"
            part = name.removeprefix("ahcq-no-")
            seeds = f"{len(costs) // len(WAYS)} seed" + ("s" if len(costs) > len(WAYS) else "")
            lines.append(f"- {part}: leaving it out costs {least:.2f} to {most:.2f} points ({seeds}); {says}.")
    return lines


def report(results: Results, reference: dict[str, float], count: int, layers: list[list[str]]) -> str:
    """The whole page."""
    lines = [
        "# Accuracy of recipes",
        "",
        f"Compiled modules on {count} unseen scenes; the float model's mean IoU is {reference['click']:.4f} from a "
        f"click (best of 3 masks), {reference['single_click']:.4f} (1 mask), {reference['box']:.4f} from a box. "
        "Entries are per cent of that, mean ± half the range over seeds; a seed changes the "
        f"{CALIBRATION_SCENES} calibration scenes, and the random numbers of the hard form. Default effort: "
        "`paper` and `ptq4sam` are without their learning here. Written by `python benchmarks/accuracy.py`; cells that "
        "are missing have not been measured yet.",
        "",
        "## vit_t",
        "",
        *table(results, reference, "vit_t", [(recipe, bits) for bits in (4, 5, 6, 8) for recipe in (*MAIN, HIGH)]),
        "",
        "Without one part at a time:",
        "",
        *table(results, reference, "vit_t", [(recipe, 4) for recipe in ("ahcq", *ABLATIONS)]),
        "",
        *verdicts(results, reference, "vit_t"),
        "",
        "## vit_t made hard (`tvm_ahcq.evaluate.hard_model.HARD`)",
        "",
        f"The same function in float. {', '.join(f'{k} {v:g}' for k, v in asdict(HARD).items())}.",
        "",
        *table(results, reference, "vit_t-hard", [(recipe, 4) for recipe in (*MAIN, *ABLATIONS)]),
        "",
        *verdicts(results, reference, "vit_t-hard"),
        "",
        "## What this says, and what not",
        "",
        "vit_t is a small model trained on generated shapes; its activations are kind, and even `minmax` keeps most of "
        "its accuracy. The hard form has the difficulties that the published papers describe, made by "
        "transformations that real arithmetic undoes. Equalisation (part of `ahcq`, not of the paper) removes freedoms "
        "of the same kind, so its gain there is an upper bound: read the rows without it too. Neither model says how "
        "far these recipes bring the official checkpoints on COCO; that has not been measured, because they cannot be "
        "had where this was written.",
        "",
        "## Layers of vit_t, `ahcq` at W4A4",
        "",
        "The least SQNR of what a layer reads and that of its weight (dB), the relative squared error of its output on "
        "the float model's values; then what its quantization alone, all else in float, changes in the logits of the "
        "masks and their IoU (2 scenes); the weight's condition number in float, and after conditioning and rounding.",
        "",
        "| layer | reads | SQNR | weight SQNR | output error | logits change | IoU lost | condition number |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in layers),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, as far as time is given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no cell after this time")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    store = FOLDER / "accuracy.json"
    content = json.loads(store.read_text()) if store.exists() else {}
    results = content.get("cells", {}) if content.get("scenes") == args.scenes else {}
    unseen = [(scene, prompted_objects(scene)) for scene in scenes(FIRST_UNSEEN, args.scenes)]
    predictor = float_predictor(ahcq.from_sam("vit_t"))
    in_float = [segment_scene(predictor, *found) for found in unseen]
    accuracy = mean_iou((masks, objects.masks) for masks, (_, objects) in zip(in_float, unseen, strict=True))
    reference = {way: getattr(accuracy, way) for way in WAYS}
    layers = content.get("layers") or layer_rows()
    for cell in cells(args.seeds):
        if time.monotonic() > end:
            break
        if cell.key not in results:
            results[cell.key] = measure(cell, unseen, in_float)
            print(cell.key, {name: round(value, 4) for name, value in results[cell.key].items()}, flush=True)
        part = store.with_suffix(".part")
        part.write_text(
            json.dumps({"scenes": args.scenes, "reference": reference, "layers": layers, "cells": results}, indent=1)
        )
        part.replace(store)
        (FOLDER / "accuracy.md").write_text(report(results, reference, args.scenes, layers), encoding="utf-8")


if __name__ == "__main__":
    main()
