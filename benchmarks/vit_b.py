"""SAM ViT-B at 1024 x 1024, with real shapes and random weights, compiled at W4A4.

Measures time and memory of the compilation, and the compiled module against its simulation and against torch float32,
in one run. Writes ``benchmarks/results/vit_b.md``. Takes about 20 minutes on 2 cores and 5 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.kernels.peak import peak_loops
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.image import ResizeLongestSide, preprocess
from tvm_ahcq.models.sam.load import build_module
from tvm_ahcq.models.sam.predictor import _CELLS_A_CALL
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.runtime.profiler import profile
from tvm_ahcq.scenes import generate, scenes
from tvm_ahcq.target import resolve_target

RESULTS = Path(__file__).parent / "results" / "vit_b.md"


def random_checkpoint(path: Path, seed: int) -> None:
    """An official-layout ViT-B checkpoint with random weights; position tables, which start at 0, get values too."""
    torch.manual_seed(seed)
    sam = build_module("vit_b", device="cpu")
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.1)
    torch.save(sam.state_dict(), path)


def seconds(function, repeats: int) -> float:
    """Median time of `repeats` calls after one."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_gigabytes() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


_RUNS = """
import sys, numpy as np, tvm_ahcq
session = tvm_ahcq.load(sys.argv[1]).session
side = session.model.image_size
embedding = SamFunctions(session).encode(np.zeros((1, 3, side, side), np.float32))
SamFunctions(session).decode(embedding, np.full((8, 2, 2), side / 2, np.float32), np.tile(np.float32([1, -1]), (8, 1)))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def running_gigabytes(bundle: Path) -> float:
    """Most memory of a process that does nothing but run the bundle: an image, and 8 clicks at once."""
    done = subprocess.run([sys.executable, "-c", _RUNS, str(bundle)], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1e6


@dataclass(frozen=True)
class Cost:
    """Of one phase."""

    seconds: float
    gigabytes: float


def calibrate(folder: Path, images: int) -> tuple[QuantizedModel, Cost]:
    """Quantized model; its table and what it cost are kept in the folder, and taken from there if they are of as many
    images."""
    checkpoint, table, cost = (folder / f"vit_b.{suffix}" for suffix in ("pth", "json", "cost.json"))
    if not checkpoint.exists():
        random_checkpoint(checkpoint, seed=0)
    model = ahcq.from_sam("vit_b", checkpoint=checkpoint)
    if cost.exists():
        kept = json.loads(cost.read_text())
        if kept.pop("images") == images:
            return ahcq.quantize(model, QuantTable.load(table)), Cost(**kept)
    start = time.perf_counter()
    qmodel = ahcq.quantize(model, [scene.image for scene in scenes(0, images)], progress=True)
    spent = Cost(time.perf_counter() - start, peak_gigabytes())
    qmodel.table.save(table)
    cost.write_text(json.dumps({"images": images, **asdict(spent)}))
    return qmodel, spent


def decode_times(session, embedding: np.ndarray, repeats: int) -> list[tuple[int, float, float]]:
    """(points, first call, median of later calls) for several numbers of points: there is nothing to recompile."""
    rows = []
    for points in (1, 2, 3, 5, 9):
        coords = np.random.default_rng(points).uniform(0, 1024, (1, points + 1, 2)).astype(np.float32)
        labels = np.array([[1.0] * points + [-1.0]], np.float32)
        start = time.perf_counter()
        SamFunctions(session).decode(embedding, coords, labels)
        first = time.perf_counter() - start
        rows.append(
            (points, first, seconds(lambda c=coords, p=labels: SamFunctions(session).decode(embedding, c, p), repeats))
        )
    return rows


def batch_time(session, embedding: np.ndarray, count: int, repeats: int) -> float:
    """Median time of `count` clicks, decoded as many at a time as a predictor does."""
    coords = np.random.default_rng(0).uniform(0, 1024, (count, 2, 2)).astype(np.float32)
    labels = np.tile(np.array([[1, -1]], np.float32), (count, 1))
    step = max(1, _CELLS_A_CALL // session.model.grid**2)

    def run() -> None:
        for start in range(0, count, step):
            SamFunctions(session).decode(embedding, coords[start : start + step], labels[start : start + step])

    return seconds(run, repeats)


def profiled(session, name: str, inputs: list[np.ndarray], repeats: int) -> list[str]:
    """Table of the kernels that take 1 % of a function or more, beside a loop of nothing but int8 multiply-adds."""
    found = profile(session, name, inputs, repeats)
    inside = sum(kernel.seconds for kernel in found.kernels)
    peaks = {unit: session.num_threads * loop.rate() for unit, loop in peak_loops(resolve_target("native")).items()}
    arithmetic = sum(kernel.macs / peaks[kernel.unit] for kernel in found.kernels if kernel.macs)
    products = sum(kernel.seconds for kernel in found.kernels if kernel.macs)
    lines = [
        "",
        f"`{name}`: {1e3 * inside:.0f} ms in kernels, {products / inside:.0%} of it in products and attention; all "
        f"multiply-adds at the peak rates would take {1e3 * arithmetic:.0f} ms.",
        "",
        "| kernel | shape | calls | ms | share | of peak |",
        "|---|---|---|---|---|---|",
    ]
    for kernel in found.kernels:
        if kernel.seconds >= 0.01 * inside:
            peak = f"{kernel.macs / kernel.seconds / peaks[kernel.unit]:.2f}" if kernel.macs else ""
            lines.append(
                f"| {kernel.kernel} | {kernel.shape} | {kernel.calls} | {1e3 * kernel.seconds:.1f} | "
                f"{kernel.seconds / inside:.1%} | {peak} |"
            )
    return lines


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two arrays."""
    return float((a * b).sum(dtype=np.float64) / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> None:
    """Compile, run, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32, help="calibration images")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder that keeps the calibration for the next run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        qmodel, calibration = calibrate(folder, args.images)
        print(calibration, flush=True)
        start, bundle = time.perf_counter(), folder / "vit_b.ahcq"
        manifest = ahcq.compile(qmodel).save(bundle)
        compilation, megabytes = Cost(time.perf_counter() - start, peak_gigabytes()), bundle.stat().st_size / 1e6
        print(compilation, flush=True)
        memory, session = running_gigabytes(bundle), ahcq.load(bundle).session
        small = ResizeLongestSide(1024).apply_image(generate(1000).image)
        image = preprocess(small.transpose(2, 0, 1)[None], session.model)
        simulated = SamFunctions(qmodel.fake_quant_predictor().session).encode(image)
        embedding = SamFunctions(session).encode(image)
        exact = SamFunctions(qmodel.float_predictor().session).encode(image)
        encode = seconds(lambda: SamFunctions(session).encode(image), args.repeats)
        sam = build_module("vit_b", device="cpu")
        sam.load_state_dict(torch.load(folder / "vit_b.pth", weights_only=True))
    torch.set_num_threads(session.num_threads)
    with torch.inference_mode():
        float_encode = seconds(lambda: sam.image_encoder(torch.from_numpy(image)), 1)
    lines = [
        "# SAM ViT-B, 1024 x 1024, W4A4 (real shapes, random weights)",
        "",
        f"Target {session.manifest.target.name}, {session.num_threads} threads; torch {torch.__version__}, as many.",
        "",
        "| figure | value |",
        "|---|---|",
        f"| calibration on {args.images} images | {calibration.seconds:.0f} s, {calibration.gigabytes:.1f} GB |",
        f"| compilation, self-check pair included | {compilation.seconds:.0f} s |",
        f"| bundle | {megabytes:.1f} MB |",
        f"| quantization sites on integers | {manifest.sites[0]}/{manifest.sites[1]} |",
        f"| stored bits a quantized weight | {manifest.weight_bits:.2f} |",
        f"| cosine of the embedding: compiled, simulated | {cosine(embedding, simulated):.5f} |",
        f"| cosine of the embedding: compiled, float | {cosine(embedding, exact):.5f} |",
        f"| image encoder, compiled | {encode:.2f} s |",
        f"| image encoder, torch float32 | {float_encode:.2f} s ({float_encode / encode:.1f}x the compiled time) |",
    ]
    clicks = decode_times(session, embedding, args.repeats)
    lines += [
        f"| prompt and decode, {points} points and padding | {1e3 * later:.0f} ms (first call {1e3 * first:.0f} ms) |"
        for points, first, later in clicks
    ]
    batch, single = batch_time(session, embedding, 64, args.repeats), clicks[0][2]
    lines.append(f"| prompt and decode, 64 clicks | {1e3 * batch:.0f} ms ({batch / single:.1f}x one click) |")
    lines.append(f"| most memory of a process that loads, encodes and decodes | {memory:.2f} GB |")
    lines += profiled(session, "encode_image", [image], args.repeats)
    lines += ["", "64 clicks in one call of the decoder:"]
    middle = np.tile(np.float32([[512, 512], [0, 0]]), (64, 1, 1))
    lines += profiled(session, "decode", [embedding, middle, np.tile(np.float32([1, -1]), (64, 1))], args.repeats)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
