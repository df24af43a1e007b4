"""The video study: J&F of recipes and bits on sam2_n, over seeds of calibration clips.

Every cell (recipe, bits, seed) is quantized on clips, compiled, and follows the objects of unseen clips with the
compiled module, from masks, boxes and clicks on the first frame. Cells are kept in ``benchmarks/results/video.json``
as they finish, so a run that was stopped goes on, and ``benchmarks/results/video.md`` is written anew after each. A
cell takes about 8 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.clips import clips
from tvm_ahcq.evaluate.datasets.clip_files import write_clips
from tvm_ahcq.evaluate.datasets.video_folders import VideoSet, read_videos
from tvm_ahcq.evaluate.datasets.video_objects import video_objects
from tvm_ahcq.evaluate.datasets.vos_predictions import PredictionFolder
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.evaluate.metrics.variants import Variant, compiled, fake_quant, float_model
from tvm_ahcq.evaluate.metrics.video_accuracy import VIDEO_METRICS, video_accuracy
from tvm_ahcq.evaluate.metrics.video_tracking import PROMPTS

FOLDER = Path(__file__).parent / "results"
MODEL = "sam2_n"
CALIBRATION_CLIPS, CLIP_FRAMES, FIRST_CALIBRATION, FIRST_UNSEEN = 16, 4, 500_000, 3_000_000
RECIPES = ("ahcq", "paper", "ptq4sam", "minmax")
SIMULATED = 5
"""Clips on which the compiled module is compared with its simulation."""

OFFICIAL = VIDEO_METRICS["official"]


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    recipe: str
    bits: int
    seed: int

    @property
    def key(self) -> str:
        """Name in the file of results."""
        return f"{self.recipe}/{self.bits}/{self.seed}"


def cells(seeds: int) -> Iterator[Cell]:
    """What is measured, the most telling first."""
    for seed in range(seeds):
        yield from (Cell(recipe, 4, seed) for recipe in RECIPES)
    for bits in (6, 8, 5):
        yield from (Cell(recipe, bits, 0) for recipe in RECIPES)


def follow(variant: Variant, data: VideoSet, prompt: str, folder: Path) -> dict[str, float]:
    """J&F, J and F of a variant; its masks go to `folder`."""
    predictions = PredictionFolder(folder, per_object=False)
    found = video_accuracy(data, lambda: variant.open_video(**OFFICIAL.options), OFFICIAL, predictions, prompt=prompt)
    return {name: value for name, value in found.figures().items() if value is not None}


def agreement(data: VideoSet, first: Path, second: Path) -> float:
    """Mean IoU of the masks in two folders, over objects and frames."""
    folders = [PredictionFolder(folder, per_object=False) for folder in (first, second)]
    values = []
    for video in data.videos:
        numbers = [each.number for each in video_objects(video)]
        for frame in video.annotated():
            one, other = (folder.read(video, frame, numbers) for folder in folders)
            values += [iou(one[number], other[number]) for number in numbers]
    return float(np.mean(values))


def quantized(cell: Cell) -> QuantizedModel:
    """Quantize the model on clips that no other part has seen."""
    first = FIRST_CALIBRATION + 1000 * cell.seed
    calibration = [clip.frames for clip in clips(first, CALIBRATION_CLIPS, CLIP_FRAMES)]
    return ahcq.quantize(ahcq.from_sam2(MODEL, video=True), calibration, ahcq.recipe(cell.recipe, cell.bits))


def measure(cell: Cell, data: VideoSet, work: Path, prompts: Iterable[str]) -> dict[str, Any]:
    """Figures of one cell: for each way to prompt J&F, J and F, and the IoU with the masks of the float model."""
    start = time.perf_counter()
    qmodel = quantized(cell)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory(dir=work) as folder:
        found: dict[str, Any] = {"quantize seconds": seconds}
        bundle = Path(folder) / "model.ahcq"
        ahcq.compile(qmodel).save(bundle)
        variant = compiled(bundle, video=True)
        for prompt in prompts:
            own = Path(folder) / prompt
            found[prompt] = follow(variant, data, prompt, own)
            found[prompt]["IoU with float"] = agreement(data, own, work / "float" / prompt)
        if cell == Cell("ahcq", 4, 0) and "mask" in prompts:
            few = VideoSet(data.root, data.layout, data.videos[:SIMULATED])
            follow(fake_quant(qmodel), few, "mask", Path(folder) / "simulated")
            found["simulated"] = agreement(few, Path(folder) / "mask", Path(folder) / "simulated")
    return found


def rows(results: dict[str, Any], reference: dict[str, Any], wanted: Iterable[tuple[str, int]]) -> list[str]:
    """Rows of the table: J&F and per cent of the float model's, mean and half the range over seeds."""
    prompts = [prompt for prompt in PROMPTS if prompt in reference]
    titles = [title for prompt in prompts for title in (f"{prompt}: J&F", "of float", "IoU with float")]
    lines = [f"| recipe | bits | seeds | {' | '.join(titles)} |", "|" + "---|" * (3 + len(titles))]
    figures = [text for prompt in prompts for text in (f"{100 * reference[prompt]['J&F']:.1f}", "", "")]
    lines.append(f"| float | 32 | | {' | '.join(figures)} |")
    for recipe, bits in wanted:
        found = [cell for key, cell in results.items() if key.rpartition("/")[0] == f"{recipe}/{bits}"]
        if not found:
            continue
        parts = []
        for prompt in prompts:
            scores = 100 * np.array([cell[prompt]["J&F"] for cell in found if prompt in cell])
            if not len(scores):
                parts += ["", "", ""]
                continue
            kept = scores / reference[prompt]["J&F"]
            spread = f" ± {np.ptp(scores) / 2:.1f}" if len(scores) > 1 else ""
            same = np.mean([cell[prompt]["IoU with float"] for cell in found if prompt in cell])
            parts += [f"{scores.mean():.1f}{spread}", f"{kept.mean():.1f} %", f"{same:.3f}"]
        lines.append(f"| {recipe} | {bits} | {len(found)} | {' | '.join(parts)} |")
    return lines


def report(content: dict[str, Any]) -> str:
    """The whole page."""
    results, reference = content["cells"], content["reference"]
    wanted = [(recipe, bits) for bits in (4, 5, 6, 8) for recipe in RECIPES]
    simulated = results.get("ahcq/4/0", {}).get("simulated")
    lines = [
        "# Tracking in videos",
        "",
        f"{MODEL} on {content['clips']} unseen clips of 16 frames, {content['objects']} objects: J&F as the evaluator "
        "of DAVIS 2017 computes it, in per cent, with masks as `vos_inference` of SAM 2 makes them. Objects are shown "
        "on the first frame by their mask, by a tight box, or by one click. Mean ± half the range over seeds; a seed "
        f"changes the {CALIBRATION_CLIPS} calibration clips of {CLIP_FRAMES} frames. `paper` and `ptq4sam` are "
        "without their learning. Written by `python benchmarks/video.py`; missing cells have not been measured.",
        "",
        *rows(results, reference, wanted),
        "",
    ]
    if simulated is not None:
        lines += [
            f"Compiled `ahcq` at W4A4 and its simulation in torch, {SIMULATED} whole clips from masks: mean IoU of "
            f"their masks {simulated:.4f}.",
            "",
        ]
    return "\n".join(lines)


def prepare(count: int, work: Path) -> VideoSet:
    """Write the clips, unless they are there."""
    folder = work / f"clips-{count}"
    if not folder.exists():
        write_clips(folder, FIRST_UNSEEN, count)
    return read_videos(folder)


def main() -> None:
    """Measure what is missing, as far as time is given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", nargs="+", choices=PROMPTS, default=PROMPTS, help="ways to show an object")
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no cell after this time")
    parser.add_argument("--work", type=Path, help="folder to keep clips and masks in, for the next run")
    args = parser.parse_args()
    end, store = time.monotonic() + 60 * args.minutes, FOLDER / "video.json"
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        data = prepare(args.clips, work)
        content = json.loads(store.read_text()) if store.exists() else {}
        if content.get("clips") != args.clips:
            content = {"clips": args.clips, "cells": {}}
        variant = float_model(ahcq.from_sam2(MODEL, video=True))
        content["objects"] = sum(len(video_objects(video)) for video in data.videos)
        in_float = {p: follow(variant, data, p, work / "float" / p) for p in args.prompts}
        content["reference"] = content.get("reference", {}) | in_float
        for cell in cells(args.seeds):
            if time.monotonic() > end:
                break
            known = content["cells"].setdefault(cell.key, {})
            if missing := [prompt for prompt in args.prompts if prompt not in known]:
                known |= measure(cell, data, work, missing)
                print(cell.key, json.dumps(content["cells"][cell.key]), flush=True)
            part = store.with_suffix(".part")
            part.write_text(json.dumps(content, indent=1))
            part.replace(store)
            (FOLDER / "video.md").write_text(report(content), encoding="utf-8")


if __name__ == "__main__":
    main()
