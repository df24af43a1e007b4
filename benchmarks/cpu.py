"""Bundles beside torch, ONNX Runtime and OpenVINO on this CPU: vit_t, and full-size models with random weights.

Writes ``benchmarks/results/cpu.md``. Needs the extra ``bench``; peers that are missing are left out. With what
``full_size.py --keep DIR`` left in DIR it takes about 15 minutes on 2 cores the first time and 10 GB, then 5 minutes.
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
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.threads import thread_count
from tvm_ahcq.scenes import generate

RESULTS = Path(__file__).parent / "results" / "cpu.md"
SCENE = 1000


def compiled(folder: Path, model: str) -> tuple[Path, Path | None]:
    """Bundle and checkpoint of a model; vit_t is compiled where that has not been done."""
    bundle, checkpoint = folder / f"{model}.ahcq", folder / f"{model}.pth"
    if model == "vit_t" and not bundle.exists():
        ahcq.compile(ahcq.quantize(ahcq.from_sam("vit_t"), generated_images())).save(bundle)
    return bundle, checkpoint if checkpoint.exists() else None


def main() -> None:
    """Compare, model by model; write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder of full_size.py, without which vit_t runs alone"
    )
    parser.add_argument("--models", nargs="+", default=["vit_b"], metavar="NAME", help="models in it (default: vit_b)")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder that keeps the exported models")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    args = parser.parse_args()
    tables = []
    with tempfile.TemporaryDirectory() as temporary:
        for model in ("vit_t", *args.models) if args.keep else ("vit_t",):
            bundle, checkpoint = compiled(args.keep or Path(temporary), model)
            chosen = read_bundle(bundle)
            folder = (args.peers or Path(temporary)).resolve() / model
            task = Task(chosen.manifest.model, bundle.resolve(), checkpoint, folder, thread_count(None))
            image = generate(SCENE).image
            write_task(task, image, (image.shape[1] / 2, image.shape[0] / 2))
            tables.append(markdown(compare(task, choose(None), chosen.target.name, args.repeats, print)))
            print(tables[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(["# Beside other runtimes, in one run\n", *tables]), encoding="utf-8")


if __name__ == "__main__":
    main()
