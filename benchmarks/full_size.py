"""A published architecture at its full size, with random weights, compiled at W4A4: ``--model vit_b``, for instance.

Measures time and memory of calibration and compilation, and the compiled module against its simulation, the float graph
and upstream's torch module, in one run. Writes ``benchmarks/results/MODEL.md``. ViT-B takes about 20 minutes on 2 cores
and 5 GB.
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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel, float_session
from tvm_ahcq.kernels.peak import peak_loops
from tvm_ahcq.models.description import DECODE, ENCODE
from tvm_ahcq.models.evaluation import Timing
from tvm_ahcq.models.execution import SessionLike
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import find_model, timing_of
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.runtime.profiler import profile
from tvm_ahcq.runtime.session import Session
from tvm_ahcq.scenes import generate, scenes
from tvm_ahcq.target import resolve_target

RESULTS = Path(__file__).parent / "results"

SCENE = 1000
"""Picture that is encoded; calibration has not seen it."""


def random_checkpoint(path: Path, model: str, seed: int) -> None:
    """Write an official-layout checkpoint with random weights; position tables, which start at 0, get values too."""
    torch.manual_seed(seed)
    family, _ = find_model(model)
    module = import_module(f"tvm_ahcq.models.{family.name}.load").build_module(model, device="cpu")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.1)
    torch.save({"model": module.state_dict()}, path)


def seconds(function: Callable[[], object], repeats: int) -> float:
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
import sys, tvm_ahcq
from tvm_ahcq.models.description import DECODE, ENCODE
from tvm_ahcq.models.registry import find_family, timing_of
session = tvm_ahcq.load(sys.argv[1]).session
spec = session.model
for purpose in (ENCODE, DECODE):
    name = find_family(spec.family).function_name(purpose)
    session.run(name, *timing_of(spec).example_inputs(spec, name, 8))
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


def load_random(folder: Path, name: str) -> FloatModel:
    """Return the model with random weights; their checkpoint is kept in the folder."""
    checkpoint = folder / f"{name}.pth"
    if not checkpoint.exists():
        random_checkpoint(checkpoint, name, seed=0)
    return find_model(name)[0].load(name, checkpoint)


def calibrate(folder: Path, name: str, images: int) -> tuple[QuantizedModel, Cost]:
    """Return the quantized model; its table and what it cost are kept in the folder, and taken from there if they are
    of as many images."""
    table, cost = (folder / f"{name}.{suffix}" for suffix in ("json", "cost.json"))
    model = load_random(folder, name)
    if cost.exists():
        stored = json.loads(cost.read_text())
        if stored.pop("images") == images:
            return ahcq.quantize(model, QuantTable.load(table)), Cost(**stored)
    start = time.perf_counter()
    qmodel = ahcq.quantize(model, [scene.image for scene in scenes(0, images)], progress=True)
    spent = Cost(time.perf_counter() - start, peak_gigabytes())
    qmodel.table.save(table)
    cost.write_text(json.dumps({"images": images, **asdict(spent)}))
    return qmodel, spent


def batch_time(session: Session, inputs: tuple[np.ndarray, ...], repeats: int) -> float:
    """Median time of one call of the decoder."""
    name = session.family.function_name(DECODE)
    return seconds(lambda: session.run(name, *inputs), repeats)


def profiled(session: Session, name: str, inputs: tuple[np.ndarray, ...], repeats: int) -> list[str]:
    """Table of the kernels that take 1 % of a function or more, beside a loop of nothing but int8 multiply-adds."""
    result = profile(session, name, list(inputs), repeats)
    inside = sum(kernel.seconds for kernel in result.kernels)
    peaks = {unit: session.num_threads * loop.rate() for unit, loop in peak_loops(resolve_target("native")).items()}
    arithmetic = sum(kernel.macs / peaks[kernel.unit] for kernel in result.kernels if kernel.macs)
    products = sum(kernel.seconds for kernel in result.kernels if kernel.macs)
    lines = [
        "",
        f"`{name}`: {1e3 * inside:.0f} ms in kernels, {products / inside:.0%} of it in products and attention; all "
        f"multiply-adds at the peak rates would take {1e3 * arithmetic:.0f} ms.",
        "",
        "| kernel | shape | calls | ms | share | of peak |",
        "|---|---|---|---|---|---|",
    ]
    for kernel in result.kernels:
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


@dataclass(frozen=True)
class Encoded:
    """The encoder's outputs of one picture, and the times of encoding it in seconds."""

    compiled: tuple[np.ndarray, ...]
    simulated: tuple[np.ndarray, ...]
    relax: tuple[np.ndarray, ...]
    upstream: tuple[np.ndarray, ...]
    compiled_seconds: float
    upstream_seconds: float


def encode(qmodel: QuantizedModel, session: Session, checkpoint: Path, repeats: int) -> Encoded:
    """Encode one picture with every executor."""
    spec, family, timing = qmodel.model.spec, qmodel.model.family, timing_of(qmodel.model.spec)
    image, name = family.prepare(spec, generate(SCENE).image), family.function_name(ENCODE)
    executors: tuple[SessionLike, ...] = (session, qmodel.fake_quant_session(), float_session(qmodel.model))
    results = [each.run(name, image) for each in executors]
    compiled_seconds = seconds(lambda: session.run(name, image), repeats)
    torch.set_num_threads(session.num_threads)
    module = timing.torch_modules(spec.name, [name], checkpoint)[name]
    with torch.inference_mode():
        outputs = module(torch.from_numpy(image))
        upstream_seconds = seconds(lambda: module(torch.from_numpy(image)), 1)
    arrays = tuple(value.numpy() for value in (outputs if isinstance(outputs, tuple) else (outputs,)))
    return Encoded(results[0], results[1], results[2], arrays, compiled_seconds, upstream_seconds)


def relative(results: tuple[np.ndarray, ...], references: tuple[np.ndarray, ...]) -> float:
    """Greatest difference of any output, relative to the greatest value of that output."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(results, references, strict=True))


def decoder_lines(session: Session, timing: Timing, repeats: int) -> list[str]:
    """Rows of the table about prompts, and the profile of 64 clicks in one call."""
    spec, name = session.model, session.family.function_name(DECODE)
    single, batch = (batch_time(session, timing.example_inputs(spec, name, count), repeats) for count in (1, 64))
    return [
        f"| prompt and decode, one click | {1e3 * single:.0f} ms |",
        f"| prompt and decode, 64 clicks in one call | {1e3 * batch:.0f} ms ({batch / single:.1f}x one click) |",
    ]


def main() -> None:
    """Compile, run, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_b", help="model type (default: vit_b)")
    parser.add_argument("--images", type=int, default=32, help="calibration images")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder that keeps the calibration for the next run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        qmodel, calibration = calibrate(folder, args.model, args.images)
        print(calibration, flush=True)
        start, bundle = time.perf_counter(), folder / f"{args.model}.ahcq"
        manifest = ahcq.compile(qmodel).save(bundle)
        compilation, megabytes = Cost(time.perf_counter() - start, peak_gigabytes()), bundle.stat().st_size / 1e6
        print(compilation, flush=True)
        floats = sum(array.nbytes for array in qmodel.model.params.values()) / 1e6
        memory, session = running_gigabytes(bundle), ahcq.load(bundle).session
        encoded = encode(qmodel, session, folder / f"{args.model}.pth", args.repeats)
    spec, timing = qmodel.model.spec, timing_of(qmodel.model.spec)
    lines = [
        f"# {args.model}, {spec.input_text}, W4A4 (real shapes, random weights)",
        "",
        f"Target {session.manifest.target.name}, {session.num_threads} threads; torch {torch.__version__}, as many.",
        "",
        "| figure | value |",
        "|---|---|",
        f"| calibration on {args.images} images | {calibration.seconds:.0f} s, {calibration.gigabytes:.1f} GB |",
        f"| compilation, self-check pair included | {compilation.seconds:.0f} s |",
        f"| bundle (float parameters: {floats:.0f} MB) | {megabytes:.1f} MB |",
        f"| quantization sites on integers | {manifest.sites[0]}/{manifest.sites[1]} |",
        f"| stored bits a quantized weight | {manifest.weight_bits:.2f} |",
        f"| float Relax graph, greatest difference from upstream | {relative(encoded.relax, encoded.upstream):.1e} |",
        f"| cosine of the embedding: compiled, simulated | {cosine(encoded.compiled[0], encoded.simulated[0]):.5f} |",
        f"| cosine of the embedding: compiled, float | {cosine(encoded.compiled[0], encoded.relax[0]):.5f} |",
        f"| image encoder, compiled | {encoded.compiled_seconds:.2f} s |",
        f"| image encoder, torch float32 | {encoded.upstream_seconds:.2f} s "
        f"({encoded.upstream_seconds / encoded.compiled_seconds:.1f}x the compiled time) |",
        *decoder_lines(session, timing, args.repeats),
        f"| most memory of a process that loads, encodes and decodes | {memory:.2f} GB |",
    ]
    for purpose, count in ((ENCODE, 1), (DECODE, 64)):
        name = session.family.function_name(purpose)
        lines += profiled(session, name, timing.example_inputs(spec, name, count), args.repeats)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.model}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
