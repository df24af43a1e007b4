"""Bundles beside torch, ONNX Runtime and OpenVINO on this CPU: embedded models, and full-size ones with random weights.

Writes ``benchmarks/results/cpu_TARGET.md``; TARGET is the best that this CPU can run. Needs the extra ``bench``; peers
that are missing are left out. With what ``full_size.py --keep DIR`` left in DIR it takes about 15 minutes on 2 cores
the first time and 10 GB, then 5 minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import tvm_ahcq as ahcq
from tvm_ahcq.bench.peers import choose
from tvm_ahcq.bench.report import markdown
from tvm_ahcq.bench.runner import compare
from tvm_ahcq.bench.task import Task, write_task
from tvm_ahcq.cli.compile import generated_images
from tvm_ahcq.models.registry import embedded_models, find_model
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.threads import thread_count
from tvm_ahcq.scenes import generate
from tvm_ahcq.target import resolve_target

RESULTS = Path(__file__).parent / "results"
SCENE = 1000


def compiled(folder: Path, model: str) -> tuple[Path, Path | None]:
    """Bundle and checkpoint of a model; one whose weights come along is compiled where that has not been done."""
    bundle, checkpoint = folder / f"{model}.ahcq", folder / f"{model}.pth"
    if model in embedded_models() and not bundle.exists():
        ahcq.compile(ahcq.quantize(find_model(model)[0].load(model, None), generated_images())).save(bundle)
    return bundle, checkpoint if checkpoint.exists() else None


def main() -> None:
    """Compare, model by model; write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder of full_size.py, for models that it compiled")
    parser.add_argument(
        "--models", nargs="+", default=embedded_models(), metavar="NAME", help="models (default: %(default)s)"
    )
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder that keeps the exported models")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    args = parser.parse_args()
    tables = []
    with tempfile.TemporaryDirectory() as temporary:
        for model in args.models:
            bundle, checkpoint = compiled(args.keep or Path(temporary), model)
            chosen = read_bundle(bundle)
            folder = (args.peers or Path(temporary)).resolve() / model
            task = Task(chosen.manifest.model, bundle.resolve(), checkpoint, folder, thread_count(None))
            image = generate(SCENE).image
            write_task(task, image, (image.shape[1] / 2, image.shape[0] / 2))
            tables.append(markdown(compare(task, choose(None), chosen.target.name, args.repeats, print)))
            print(tables[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    name = resolve_target("native").name
    text = "\n".join([f"# Beside other runtimes, {name}\n", *tables])
    (RESULTS / f"cpu_{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
