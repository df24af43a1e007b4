"""``tvm-ahcq bench``: a bundle beside other runtimes of the same model, in one run."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import UsageError, count, input_file, new_folder, output_file
from .console import progress_bar, result, table
from .models import EMBEDDED, is_embedded

if TYPE_CHECKING:
    from tvm_ahcq.bench.runner import Comparison
    from tvm_ahcq.bench.task import Task

_SCENE = 1000
"""Number of the generated scene that everyone segments."""

EXAMPLES = """\
examples:
  the model that comes along:   tvm-ahcq bench vit_t.ahcq
  a large one, as a file:       tvm-ahcq bench sam_b.ahcq --checkpoint sam_vit_b_01ec64.pth --work-dir peers/ -o cpu.md
  only some peers:              tvm-ahcq bench vit_t.ahcq --peers torch openvino
  without AMX on both sides:    ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI tvm-ahcq bench vit_t.ahcq --target avx512-vnni

Peers are torch (float32, bfloat16), ONNX Runtime (float32, dynamic int8) and OpenVINO (float32, bfloat16, encoder in
int8 by NNCF); those that are not installed are named and left out: pip install 'tvm-ahcq[bench]'. They run the float
checkpoint that the bundle was made from. Each has a process of its own; they take turns, so that a busy machine is busy
for all. Exporting and quantizing vit_b for the peers takes minutes and up to 10 GB; --work-dir keeps what comes of it.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "bench",
        help="compare a bundle with other runtimes",
        description="Run a bundle and other runtimes of the same model in turn: time, memory, size.",
        epilog=EXAMPLES,
    )
    parser.add_argument("bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile`")
    parser.add_argument(
        "--checkpoint",
        metavar="F",
        type=input_file,
        help=f"float weights that the bundle was made from; not needed for {EMBEDDED}",
    )
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="parts of the names of peers (default: all)")
    parser.add_argument("--repeats", metavar="N", type=count, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=count, help="threads of each (default: physical cores)")
    parser.add_argument("--target", metavar="T", help="which target of the bundle (default: the best for this machine)")
    parser.add_argument(
        "--work-dir",
        metavar="D",
        type=new_folder,
        help="keep exported and quantized models here for the next run with the same checkpoint",
    )
    parser.add_argument("-o", "--output", metavar="F.md", type=output_file, help="write the table to this file, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    from tvm_ahcq.bench.peers import choose
    from tvm_ahcq.bench.runner import compare

    peers = choose(args.peers)
    with tempfile.TemporaryDirectory(prefix="tvm-ahcq-bench-") as temporary:
        task, target = _task(args, Path(temporary))
        with progress_bar("bench") as update:
            found = compare(task, peers, target, args.repeats, lambda what: update(what, 0, 1))
    _report(found, args.output)


def _task(args: argparse.Namespace, temporary: Path) -> tuple[Task, str]:
    """The task, written to its folder, and the name of the target that runs it."""
    from tvm_ahcq.bench.task import Task, write_task
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.threads import thread_count
    from tvm_ahcq.scenes import generate

    bundle = read_bundle(args.bundle, target=args.target)
    name = bundle.manifest.model.name
    if args.checkpoint is None and not is_embedded(name):
        raise UsageError(f"bench: peers need the float weights of {name}; give its checkpoint with --checkpoint F")
    checkpoint = None if args.checkpoint is None else args.checkpoint.resolve()
    folder = (args.work_dir or temporary).resolve()
    task = Task(
        bundle.manifest.model, args.bundle.resolve(), checkpoint, folder, thread_count(args.threads), args.target
    )
    image = generate(_SCENE).image
    write_task(task, image, (image.shape[1] / 2, image.shape[0] / 2))
    return task, bundle.target.name


def _report(found: Comparison, output: Path | None) -> None:
    from tvm_ahcq.bench.report import header, markdown, rows, summary

    for line in summary(found):
        result("bench", line)
    table(header(found), rows(found))
    if output is not None:
        output.write_text(markdown(found), encoding="utf-8")
        result("table", str(output))
