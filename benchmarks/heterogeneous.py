"""Whole encoders on CPU and simulated accelerator: cycles, busy array, frames a second, traffic; and the tile search.

    python benchmarks/heterogeneous.py                # vit_t
    python benchmarks/heterogeneous.py --vit-b DIR    # also SAM ViT-B, calibration kept in DIR as by vit_b.py

Each model is compiled for the host alone and for host and accelerator; one picture is encoded by both on the functional
simulator, whose cycles are those of the RTL, and the embeddings are compared. With ``--search``, every size of the
loops of each of ViT-B's layers is simulated, and the compiler's choice compared with the best. Frames a second are at
the routed clock of ``results/fpga.json``, if it is there: see ``fpga_table.py``.

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

import numpy as np
from vit_b import calibrate

import tvm_ahcq as ahcq
from tvm_ahcq.cli.compile import generated_images
from tvm_ahcq.codegen.device import open_device
from tvm_ahcq.codegen.hardware.attention_plan import AttentionStage, Plan
from tvm_ahcq.codegen.hardware.attention_stream import stream_entries, tile_sizes
from tvm_ahcq.codegen.hardware.config import Config, named
from tvm_ahcq.codegen.hardware.generated.isa import LIMITS
from tvm_ahcq.codegen.hardware.program import INSTRUCTION_BYTES
from tvm_ahcq.codegen.hardware.schedule import Entry, synchronise
from tvm_ahcq.codegen.lower.linear import linear_entries
from tvm_ahcq.codegen.lower.linear_tiling import Tiling, candidates, choose_tiling
from tvm_ahcq.codegen.lower.memory import DeviceMemory, move_constants
from tvm_ahcq.codegen.lower.stage import LinearStage, pack_fields
from tvm_ahcq.compiler import QuantizedModel
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.evaluate.roofline_plot import roofline_plot
from tvm_ahcq.evaluate.scenes import generate
from tvm_ahcq.quantizers.lnq import LnqParams
from tvm_ahcq.quantizers.log_attention import log_attention_constants
from tvm_ahcq.quantizers.uniform import UniformParams
from tvm_ahcq.runtime.device_profile import OperatorCycles, device_profile, total
from tvm_ahcq.runtime.image import ResizeLongestSide, preprocess
from tvm_ahcq.runtime.offload import OffloadReport

RESULTS = Path(__file__).resolve().parent / "results"
KEPT, PAGE, CLOCKS = RESULTS / "heterogeneous.json", RESULTS / "heterogeneous.md", RESULTS / "fpga.json"

LAYERS = {
    "qkv, lin1: even groups": (768, 768, (192,) * 4),
    "qkv, lin1: uneven groups": (768, 768, (300, 20, 40, 408)),
    "proj": (768, 768, (768,)),
    "lin2": (3072, 768, (3072,)),
    "neck": (768, 256, (768,)),
}
"""ViT-B's linear layers: name -> (K, N, channel groups); of qkv and lin1 some columns, as sets of them repeat."""

HEADS = {"window attention": ((14, 14), 12, 84), "global attention": ((64, 64), 1, 24)}
"""Its attention: name -> (sides of the picture, heads, tiles of queries that are simulated)."""

SEARCH_CYCLES = 600_000
"""Of the array in a layer whose tiles are searched, at least: start and end of its program hardly count."""


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
    expected = alone.encode(image)
    begin = time.perf_counter()
    found = session.encode(image)
    simulated = time.perf_counter() - begin
    report = OffloadReport.from_dict(session.manifest.accelerator)
    stays = {place.reason for place in report.of("encode_image") if place.reason and place.macs}
    figures = {
        "config": config, "compile_s": seconds, "bundle_mb": path.stat().st_size / 1e6, "encode_s": simulated,
        "rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "different": float((found != expected).mean()), "share": report.share("encode_image"),
        "stays": sorted(stays), "device_mb": session.accelerator.memory_bytes / 1e6, "threads": session.num_threads,
    }  # fmt: skip
    return figures, device_profile(session, "encode_image")


def kinds(operators: Iterable[OperatorCycles]) -> list[tuple[int, OperatorCycles]]:
    """Operators of one kind and size together: how many, and their sums."""
    found: dict[tuple[str, int], list[OperatorCycles]] = {}
    for each in operators:
        name = "attention" if each.kind == "attention" else each.name.rsplit(".", 1)[-1]
        name = "neck" if ".neck." in each.name else name
        found.setdefault((name, each.macs), []).append(each)
    return [(len(parts), total(parts, name, parts[0].kind)) for (name, _), parts in found.items()]


def row(count: int, each: OperatorCycles) -> str:
    """A row of a model's table."""
    cycles = max(each.cycles, 1)
    cells = [each.name if count == 1 else f"{each.name} x{count}", f"{each.macs / 1e9:.3f}", f"{cycles / 1e6:.2f}",
             f"{each.busy:.1%}", f"{each.vector / cycles:.0%}", f"{each.estimate / cycles - 1:+.1%}",
             f"{each.loaded / 1e6:.1f}", f"{each.stored / 1e6:.1f}", f"{each.transfer / 1e6:.1f}",
             f"{each.intensity:.0f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def clock(config: str) -> float | None:
    """Routed clock of a configuration in Hz: the median of its seeds."""
    records = json.loads(CLOCKS.read_text()).values() if CLOCKS.is_file() else []
    rates = [each["fmax_mhz"] * 1e6 for each in records if each["config"] == config and each["target"] == "ecp5"]
    return float(np.median(rates)) if rates else None


def model_page(name: str, kept: dict[str, Any]) -> list[str]:
    """Section of a model."""
    figures, operators = kept["figures"], [OperatorCycles(**each) for each in kept["operators"]]
    every = total(operators, "all")
    rate = clock(figures["config"])
    speed = f"{rate / every.cycles:.3g} at the routed {rate / 1e6:.1f} MHz" if rate else \
        f"{100e6 / every.cycles:.3g} at 100 MHz (no routed clock is recorded)"  # fmt: skip
    different = f"{figures['different']:.2%}" if figures["different"] else "none"
    lines = [
        f"## {name} on `{figures['config']}`", "", "| figure | value |", "|---|---|",
        f"| multiply-adds of the encoder that are offloaded | {figures['share']:.2%} |",
        f"| the others | {'; '.join(figures['stays'])} |",
        f"| cycles of one picture | {every.cycles / 1e6:.2f} M |",
        f"| array busy | {every.busy:.1%} of them |",
        f"| multiply-adds a cycle, without padding | {every.rate:.1f} of {named(figures['config']).dim ** 2} |",
        f"| frames a second, without the host's part and transfers | {speed} |",
        f"| bytes between accelerator and its memory | {every.loaded / 1e6:.0f} MB loaded, "
        f"{every.stored / 1e6:.0f} MB stored |",
        f"| bytes between host and that memory | {every.transfer / 1e6:.0f} MB |",
        f"| numbers of the embedding that differ from the host's | {different} |",
        f"| simulation of the picture, host included, {figures['threads']} threads | {figures['encode_s']:.1f} s |",
        f"| compilation for host and accelerator, saving included | {figures['compile_s']:.0f} s |",
        f"| bundle | {figures['bundle_mb']:.1f} MB |",
        f"| memory of the device | {figures['device_mb']:.0f} MB |",
        f"| most memory of the process that did all of it | {figures['rss_gb']:.1f} GB |", "",
        "| layer | GMAC | Mcycles | array busy | vector busy | estimate off by | MB loaded | MB stored | MB to and "
        "from the host | MAC a byte |", "|---" * 10 + "|",
    ]  # fmt: skip
    lines += [row(*each) for each in kinds(operators)] + [row(1, replace(every, name="**all**")), ""]
    return [*lines, f"![roofline]({draw(name, figures['config'], operators)})", ""]


def draw(name: str, config: str, operators: list[OperatorCycles]) -> str:
    """Name of a model's roofline picture."""
    title = f"{name}, image encoder, {config}"
    path = RESULTS / f"roofline_{name}_{config}.svg"
    path.write_text(roofline_plot(title, operators, named(config).dim ** 2, LIMITS["chunk_bytes"]), encoding="utf-8")
    return path.name


def cycles_of(config: Config, memory: DeviceMemory, entries: list[Entry]) -> tuple[int, int]:
    """Cycles, and those in which the array is busy, of a program on the functional simulator."""
    base = -(-memory.scratch_bytes // 64) * 64
    program = move_constants(synchronise(entries, config), base)
    data = memory.constants + program
    size = -(-(base + len(data)) // 4096) * 4096
    with open_device("fsim", config, memory_bytes=size) as device:
        device.copy_in(base, data)
        ended = device.run(base + len(memory.constants), len(program) // INSTRUCTION_BYTES, 3600)
        if ended.error != "none":
            raise DeviceError(f"{config.name}: a program ends with {ended}.")
        counters = device.counters()
        return counters["cycles"], counters["array_busy"]


def stage_of(inputs: int, outputs: int, sizes: tuple[int, ...], dim: int) -> LinearStage:
    """A layer with random weights; groups are padded to whole words."""
    rng = np.random.default_rng(0)
    padded = tuple(-(-size // dim) * dim for size in sizes)
    weight = rng.integers(0, 16, (outputs, sum(padded))).astype(np.uint8)
    zero, tables = np.full(outputs, 8, np.uint8), np.tile(np.arange(16) - 8, (len(sizes), 1))
    fields = pack_fields([20 * size for size in sizes])  # as of bell-shaped weights
    rows = max(128, -(-SEARCH_CYCLES * dim**2 // (64 * inputs * outputs)) * 64)
    return LinearStage(rows, weight, zero, padded, tables, fields)


def search_linear(config: Config, stage: LinearStage) -> tuple[int, list[tuple[Tiling, int]]]:
    """How many tilings there are; those that may be faster than the compiler's choice, and their cycles, it first."""
    default = choose_tiling(config, stage)
    every = [replace(tiling, chunk=chunk) for tiling in candidates(config, stage)
             for chunk in sorted({max(1, tiling.resident // parts) for parts in (3, 4, 6)})]  # fmt: skip
    every = [default, *(tiling for tiling in every if tiling.fits and tiling != default)]
    found: list[tuple[Tiling, int]] = []
    busy = 0
    for tiling in every:
        if found and tiling.busiest * busy > found[0][1]:
            continue  # its busiest unit alone takes longer
        memory = DeviceMemory()
        source, result = memory.scratch(stage.rows * stage.weight.shape[1] // 2), memory.scratch(stage.result_bytes())
        cycles, busy = cycles_of(config, memory, linear_entries(memory, tiling, source, result))
        found.append((tiling, cycles))
    return len(every), found


def search_attention(config: Config, sides: tuple[int, int], heads: int, tiles: int) -> list[tuple[int, float]]:
    """Queries of a tile, and cycles for a query, for every size that fits, the compiler's choice first."""
    rng, tokens = np.random.default_rng(0), sides[0] * sides[1]
    codes = (UniformParams(bits=4, scale=0.2, zero_point=8) for _ in range(3))
    tables = [rng.normal(size=(2 * side - 1, 64)) for side in sides]
    constants, rel_h, rel_w = log_attention_constants(*codes, LnqParams(bits=4, alpha=20.0, scale=0.7), scale=0.125,
                                                      head_dim=64, rel_h=tables[0], rel_w=tables[1])  # fmt: skip
    stage = AttentionStage(heads, tokens, tokens, 64, constants, rel_h, rel_w)
    found = []
    for size in tile_sizes(config, stage):
        try:
            plan = Plan(config, stage, size)
        except DeviceError:
            continue
        memory = DeviceMemory()
        plan.at = {}
        plan.place(memory.constant, memory.scratch)
        for name, rows in (("q", plan.padded_queries), ("k", plan.keys), ("v", plan.keys)):
            plan.at[name] = memory.scratch(heads * rows * stage.channels // 2)
        plan.at["sums"] = memory.scratch(heads * plan.padded_queries * stage.channels * 4)
        cycles, _ = cycles_of(config, memory, stream_entries(plan, tiles))
        found.append((size, cycles / (min(tiles, heads * plan.tiles) * size)))
    return found


def search(config: Config) -> list[str]:
    """Rows of the table about the compiler's choice against the best."""
    lines = []
    for name, (inputs, outputs, sizes) in LAYERS.items():
        count, found = search_linear(config, stage_of(inputs, outputs, sizes, config.dim))
        (default, cycles), (best, least) = found[0], min(found, key=lambda each: each[1])
        texts = [f"{each.rows} rows, {each.blocks} blocks, chunks of {each.chunk}" for each in (default, best)]
        lines.append(f"| {name} | {len(found)} of {count} | {texts[0]} | {texts[1]} | {cycles / least - 1:.2%} |")
        print(lines[-1], flush=True)
    for name, shape in HEADS.items():
        sizes = search_attention(config, *shape)
        (queries, cost), (other, least_cost) = sizes[0], min(sizes, key=lambda each: each[1])
        lines.append(f"| {name} | {len(sizes)} | {queries} queries | {other} queries | {cost / least_cost - 1:.2%} |")
        print(lines[-1], flush=True)
    return lines


def page(kept: dict[str, Any]) -> str:
    """All of it."""
    lines = ["# Encoders on CPU and accelerator", "", "Written by `benchmarks/heterogeneous.py`.", "",
             "Cycles are of the functional simulator, equal to the RTL's with memory of 8 bytes a cycle each way and "
             "latency 40. Padding keeps the array busy too. Estimates are the compiler's (`codegen/lower/work.py`).",
             ""]  # fmt: skip
    for name, model in kept["models"].items():
        lines += model_page(name, model)
    for config, rows in kept["search"].items():
        lines += [f"## Tiles: the compiler's choice against the best of all, ViT-B on `{config}`", "",
                  "Linear layers: every number of rows and of column blocks of a tile that fits, three sizes of the "
                  "chunks each: loop sizes and shares of the buffers; but for those whose busiest unit alone takes "
                  "longer than the choice. Attention: every tile of queries that fits.", "",
                  "| layer | simulated | choice | best | choice slower by |", "|---" * 5 + "|", *rows, ""]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ecp5_16x16", help="of configs.yaml (default: %(default)s)")
    parser.add_argument("--vit-b", type=Path, metavar="DIR", help="also ViT-B, with the calibration kept there")
    parser.add_argument("--images", type=int, default=32, help="calibration images of ViT-B (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder of bundles; those there are reused")
    parser.add_argument("--no-vit-t", action="store_true", help="keep the figures of vit_t as they are")
    parser.add_argument("--search", action="store_true", help="simulate every size of the loops")
    options = parser.parse_args()
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.is_file() else {"models": {}, "search": {}}
    models: dict[str, Callable[[], QuantizedModel]] = {}
    if not options.no_vit_t:
        models["vit_t"] = cache(lambda: ahcq.quantize(ahcq.from_sam("vit_t"), generated_images()))
    if options.vit_b:
        models["vit_b"] = cache(lambda: calibrate(options.vit_b, options.images)[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, model in models.items():
            figures, operators = encode_both(folder, name, model, options.config)
            kept["models"][name] = {"figures": figures, "operators": [asdict(each) for each in operators]}
            print("\n".join(model_page(name, kept["models"][name])), flush=True)
    if options.search:
        kept["search"][options.config] = search(named(options.config))
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
