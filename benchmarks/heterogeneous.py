"""Whole encoders on CPU and simulated accelerator: cycles, busy array, frames a second, traffic; and the tile search.

    python benchmarks/heterogeneous.py                # vit_t
    python benchmarks/heterogeneous.py --vit-b DIR    # also SAM ViT-B, calibration kept in DIR as by full_size.py

Each model is compiled for the host alone and for host and accelerator; one picture is encoded by both on the functional
simulator, whose cycles are those of the RTL, and the embeddings are compared; of vit_t also the masks of objects in
generated scenes, prompted with their boxes. With ``--search DIR``, tiles of each of
ViT-B's layers are tuned, and the compiler's choice compared with the best. Frames a second are at the routed clock of
``results/fpga.json``, if it is there: see ``fpga_table.py``.

Writes ``benchmarks/results/heterogeneous.md`` and a roofline picture of each model; what is not measured again is kept
in ``benchmarks/results/heterogeneous.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import fpga_baseline
import numpy as np
from full_size import calibrate

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.cli.compile import generated_images
from tvm_ahcq.codegen.hardware.baseline.model import Core
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.evaluate.report.roofline_plot import roofline_plot
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.image import ResizeLongestSide, preprocess
from tvm_ahcq.runtime.device_profile import OperatorCycles, device_profile, total
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.scenes import generate
from tvm_ahcq.tune.accelerator.programs import TileTask
from tvm_ahcq.tune.accelerator.runner import CycleRunner
from tvm_ahcq.tune.accelerator.shapes import encoder_shapes
from tvm_ahcq.tune.accelerator.tuner import tune_tiles

RESULTS = Path(__file__).resolve().parent / "results"
SCENES = 5000
"""Seed of the first scene whose masks are compared."""
KEPT, PAGE, CLOCKS = RESULTS / "heterogeneous.json", RESULTS / "heterogeneous.md", RESULTS / "fpga.json"


def bundle(folder: Path, name: str, model: Callable[[], QuantizedModel], config: str | None) -> tuple[Path, float]:
    """A model's bundle, for the host alone or with an accelerator, and seconds of its compilation, saving included."""
    path = folder / f"{name}-{config or 'host'}.ahcq"
    note = path.with_suffix(".seconds")
    if not (path.exists() and note.exists()):
        qmodel = model()
        begin = time.perf_counter()
        ahcq.compile(qmodel, accelerator=config).save(path)
        note.write_text(str(time.perf_counter() - begin))
    return path, float(note.read_text())


def encode_both(
    folder: Path, name: str, model: Callable[[], QuantizedModel], config: str
) -> tuple[dict[str, Any], list[OperatorCycles]]:
    """Figures of a model, and the counters of its operators."""
    path, seconds = bundle(folder, name, model, config)
    session = ahcq.load(path).session
    alone = ahcq.load(bundle(folder, name, model, None)[0]).session
    image = ResizeLongestSide(session.model.image_size).apply_image(generate(1000).image)
    image = preprocess(image.transpose(2, 0, 1)[None], session.model)
    expected = SamFunctions(alone).encode(image)
    begin = time.perf_counter()
    embedding = SamFunctions(session).encode(image)
    simulated = time.perf_counter() - begin
    report = OffloadReport.from_dict(session.manifest.accelerator)
    stays = {place.reason for place in report.of("encode_image") if place.reason and place.macs}
    figures = {
        "config": config,
        "compile_s": seconds,
        "bundle_mb": path.stat().st_size / 1e6,
        "encode_s": simulated,
        "rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "different": float((embedding != expected).mean()),
        "share": report.share("encode_image"),
        "stays": sorted(stays),
        "device_mb": session.accelerator.memory_bytes / 1e6,
        "threads": session.num_threads,
    }
    return figures, device_profile(session, "encode_image")


def kinds(operators: Iterable[OperatorCycles]) -> list[tuple[int, OperatorCycles]]:
    """Return operators merged by kind and size: their number, and their sums."""
    groups: dict[tuple[str, int], list[OperatorCycles]] = {}
    for each in operators:
        name = "attention" if each.kind == "attention" else each.name.rsplit(".", 1)[-1]
        name = "neck" if ".neck." in each.name else "patch embedding" if ".patch_embed." in each.name else name
        groups.setdefault((name, each.macs), []).append(each)
    return [(len(parts), total(parts, name, parts[0].kind)) for (name, _), parts in groups.items()]


def row(count: int, each: OperatorCycles) -> str:
    """A row of a model's table."""
    cycles = max(each.cycles, 1)
    cells = [
        each.name if count == 1 else f"{each.name} x{count}",
        f"{each.macs / 1e9:.3f}",
        f"{cycles / 1e6:.2f}",
        f"{each.busy:.1%}",
        f"{each.vector / cycles:.0%}",
        f"{each.estimate / cycles - 1:+.1%}",
        f"{each.loaded / 1e6:.1f}",
        f"{each.stored / 1e6:.1f}",
        f"{each.transfer / 1e6:.1f}",
        f"{each.intensity:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def mask_overlap(folder: Path, name: str, model: Callable[[], QuantizedModel], config: str, count: int) -> list[float]:
    """Intersection over union of each object's mask on the host and on host and accelerator, in so many pictures."""
    both = [ahcq.load(bundle(folder, name, model, where)[0]) for where in (None, config)]
    overlaps = []
    for seed in range(count):
        scene = generate(SCENES + seed)
        for predictor in both:
            predictor.set_image(scene.image)
        for index in scene.objects():
            ys, xs = np.nonzero(scene.mask(index))
            box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            host, other = (each.predict(box=box, multimask_output=False)[0][0] for each in both)
            overlaps.append(float((host & other).sum() / max((host | other).sum(), 1)))
    return overlaps


def routed() -> list[dict[str, Any]]:
    """Records of builds for the ECP5 that were routed, and not only placed."""
    records = json.loads(CLOCKS.read_text()).values() if CLOCKS.is_file() else []
    return [each for each in records if each["target"] == "ecp5" and "fmax_mhz" in each]


def clock(config: str) -> float | None:
    """Routed clock of a configuration in Hz: the best of its seeds."""
    return max((each["fmax_mhz"] * 1e6 for each in routed() if each["config"] == config), default=None)


def against_floating_point(seconds: float) -> list[str]:
    """Rows of ViT-B's figures: the time of the largest routed floating-point core of each format."""
    rows = []
    for kind in ("fp32", "bf16"):
        for record in fpga_baseline.by_lanes(routed(), kind)[-1:]:
            core, rate = Core(**record["core"]), record["fmax_mhz"] * 1e6
            if core.lanes < fpga_baseline.FILLING:
                continue
            core_seconds = fpga_baseline.encoder_cycles(core) / rate
            rows.append(
                f"| {core.name} at its routed {rate / 1e6:.1f} MHz, without softmax, GELU and memory | "
                f"{core_seconds:.1f} s a picture: the accelerator is {core_seconds / seconds:.2f} times as fast |"
            )
    return rows


def model_page(recorded: dict[str, Any]) -> list[str]:
    """Section of a model on an accelerator."""
    name: str = recorded["name"]
    figures, operators = recorded["figures"], [OperatorCycles(**each) for each in recorded["operators"]]
    every = total(operators, "all")
    rate = clock(figures["config"])
    speed = (
        f"{rate / every.cycles:.3g} at the routed {rate / 1e6:.1f} MHz"
        if rate
        else f"{100e6 / every.cycles:.3g} at 100 MHz (no routed clock is recorded)"
    )
    different = f"{figures['different']:.2%}" if figures["different"] else "none"
    lines = [
        f"## {name} on `{figures['config']}`",
        "",
        "| figure | value |",
        "|---|---|",
        f"| multiply-adds of the encoder that are offloaded | {figures['share']:.2%} |",
        f"| the others | {'; '.join(figures['stays']) or 'none'} |",
        f"| cycles of one picture | {every.cycles / 1e6:.2f} M |",
        f"| array busy | {every.busy:.1%} of them |",
        f"| multiply-adds a cycle, without padding | {every.rate:.1f} of {named(figures['config']).dim ** 2} |",
        f"| a beat of the bus | {named(figures['config']).beat_bytes} bytes |",
        f"| frames a second, without the host's part and transfers | {speed} |",
        *(against_floating_point(every.cycles / rate) if rate and name == "vit_b" else []),
        f"| bytes between accelerator and its memory | {every.loaded / 1e6:.0f} MB loaded, "
        f"{every.stored / 1e6:.0f} MB stored |",
        f"| bytes between host and that memory | {every.transfer / 1e6:.0f} MB |",
        f"| numbers of the embedding that differ from the host's | {different} |",
        *masks_row(figures.get("masks")),
        f"| simulation of the picture, host included, {figures['threads']} threads | {figures['encode_s']:.1f} s |",
        f"| compilation for host and accelerator, saving included | {figures['compile_s']:.0f} s |",
        f"| bundle | {figures['bundle_mb']:.1f} MB |",
        f"| memory of the device | {figures['device_mb']:.0f} MB |",
        f"| most memory of the process that did all of it | {figures['rss_gb']:.1f} GB |",
        "",
        "| layer | GMAC | Mcycles | array busy | vector busy | estimate off by | MB loaded | MB stored | MB to and "
        "from the host | MAC a byte |",
        "|---" * 10 + "|",
    ]
    lines += [row(*each) for each in kinds(operators)] + [row(1, replace(every, name="**all**")), ""]
    return [*lines, f"![roofline]({draw(name, figures['config'], operators)})", ""]


def masks_row(masks: dict[str, Any] | None) -> list[str]:
    """Row about masks, where they were compared."""
    if not masks:
        return []
    return [
        f"| masks of {masks['objects']} objects in {masks['scenes']} scenes, against the host's | mean "
        f"intersection over union {masks['mean']:.4f}, least {masks['least']:.4f} |"
    ]


def draw(name: str, config: str, operators: list[OperatorCycles]) -> str:
    """Name of a model's roofline picture."""
    title = f"{name}, image encoder, {config}"
    path = RESULTS / f"roofline_{name}_{config}.svg"
    sizes = named(config)
    path.write_text(roofline_plot(title, operators, sizes.dim**2, sizes.beat_bytes), encoding="utf-8")
    return path.name


def search(config: Config, folder: Path, trials: int) -> list[str]:
    """Rows of the table about the compiler's tiles of ViT-B against the best that tuning finds."""
    states = tune_tiles(config, encoder_shapes("vit_b", config), trials, folder, CycleRunner(), resume=True)
    lines = []
    for state in states:
        default, fewer = TileTask(config, state.workload).space.tiles[0], 1 - state.best / state.default
        lines.append(
            f"| {state.workload} | {state.trials} | {default} | {state.tile} | {state.default / 1e6:.2f} | "
            f"{fewer:.2%} |"
        )
    return lines


def page(recorded: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Encoders on CPU and accelerator",
        "",
        "Written by `benchmarks/heterogeneous.py`.",
        "",
        "Cycles are of the functional simulator, equal to the RTL's with memory that takes and gives a beat of "
        "the bus in a cycle, latency 40. Padding keeps the array busy too. Estimates are the compiler's "
        "(`codegen/lower/cycle_model.py`).",
        "",
    ]
    for model in recorded["models"].values():
        lines += model_page(model)
    for config, rows in recorded["search"].items():
        lines += [
            f"## Tiles: the compiler's choice against the best that was found, ViT-B on `{config}`",
            "",
            "What `tvm-ahcq tune --model vit_b --accelerator` does: sizes and order of the loops and split of "
            "the buffers, candidates chosen by xgboost, each measured in cycles of the whole operator.",
            "",
            "| operator | candidates | choice | best | Mcycles of the choice | best takes fewer by |",
            "|---" * 6 + "|",
            *rows,
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ecp5_16x16", help="of configs.yaml (default: %(default)s)")
    parser.add_argument("--vit-b", type=Path, metavar="DIR", help="also ViT-B, with the calibration kept there")
    parser.add_argument("--images", type=int, default=32, help="calibration images of ViT-B (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder of bundles; those there are reused")
    parser.add_argument("--no-vit-t", action="store_true", help="keep the figures of vit_t as they are")
    parser.add_argument("--scenes", type=int, default=100, help="whose masks vit_t segments (default: %(default)s)")
    parser.add_argument("--search", type=Path, metavar="DIR", help="tune the tiles of ViT-B; records there are reused")
    parser.add_argument("--trials", type=int, default=32, help="with --search: candidates (default: %(default)s)")
    options = parser.parse_args()
    recorded: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.is_file() else {"models": {}, "search": {}}
    models: dict[str, Callable[[], QuantizedModel]] = {}
    if not options.no_vit_t:
        models["vit_t"] = cache(lambda: ahcq.quantize(ahcq.from_sam("vit_t"), generated_images()))
    if options.vit_b:
        models["vit_b"] = cache(lambda: calibrate(options.vit_b, "vit_b", options.images)[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, model in models.items():
            figures, operators = encode_both(folder, name, model, options.config)
            if name == "vit_t" and options.scenes:
                overlaps = mask_overlap(folder, name, model, options.config, options.scenes)
                figures["masks"] = {
                    "scenes": options.scenes,
                    "objects": len(overlaps),
                    "mean": float(np.mean(overlaps)),
                    "least": min(overlaps),
                }
            recorded["models"][f"{name} {options.config}"] = {
                "name": name,
                "figures": figures,
                "operators": [asdict(each) for each in operators],
            }
            print("\n".join(model_page(recorded["models"][f"{name} {options.config}"])), flush=True)
    if options.search:
        recorded["search"][options.config] = search(named(options.config), options.search, options.trials)
    KEPT.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(recorded), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
