"""Train ``sam2_n`` on generated scenes and clips: ``python training/train_sam2_n.py --out run/``.

Pictures first: clicks, boxes and corrective clicks, while ``vit_t``'s image encoder teaches the new one (its weight
falls to 0 over the first half). Then clips, with memory, in turn with pictures. In each stage the learning rate warms
up, stays constant, and decays linearly over the last part. The same command resumes an interrupted run from its last
checkpoint; more steps of a stage lengthen it. ``--evaluate N`` measures the weights so far on N unseen scenes and
clips. Where other programs take turns on the cores, ``OMP_WAIT_POLICY=PASSIVE`` keeps threads from waiting busily.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from sam2_n.evaluate import clip_accuracy, picture_accuracy
from sam2_n.optimizers import make_optimizers, set_rate
from sam2_n.pictures import PicturePool, distillation_loss, encode, make_batch, picture_loss
from sam2_n.start import initial_model, teacher
from sam2_n.tracking import KINDS, ClipPool, clip_loss, make_clip_batch, normalise, start_memory
from torch import distributed, multiprocessing, nn

from tvm_ahcq.evaluate.metrics.coin_scores import GOOD_COIN, coin_scores, found_coins
from tvm_ahcq.models.sam2.sam2_n import build_sam2_n
from tvm_ahcq.models.sam2.timing import fit_upstream_predictor

STAGES, WEIGHTS = ("pictures", "clips"), "sam2_n.safetensors"

COARSE, FINE = 64, 128
"""Masks are compared at the decoder's own resolution first and at twice that during the decay, for sharper outlines."""

DISTILLED = 0.5
"""Fraction of the first stage over which the teacher's weight falls to 0."""

CORRECTED = 0.3
"""Fraction of steps on pictures with a corrective click."""

TRUE_MEMORY = 0.2
"""Fraction of the second stage over which memories of true masks give way to the model's own."""

LENGTHS, LONG = (4, 8), 0.3
"""Frames of short and long excerpts of clips, and the fraction of steps with long ones."""

REVIEWED = 3
"""In the second stage every so many steps there is one on pictures."""


class Run:
    """Model, optimizers, and the moving average of the weights, which is what is kept in the end.

    Attributes
    ----------
    steps : dict of str to int
        Steps done, by stage.
    seconds : float
        CPU seconds spent.
    rank : int
        Which of the processes this is that share a step's images; they keep equal weights.
    """

    def __init__(self, args: argparse.Namespace, rank: int):
        self.args, self.rank, self.steps, self.seconds = args, rank, dict.fromkeys(STAGES, 0), 0.0
        self.model = initial_model().train()
        self.optimizers = make_optimizers(self.model, rank, args.workers)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.teacher = teacher()
        self.checkpoint = args.out / "checkpoint.pt"

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average, self.steps, self.seconds = state["average"], state["steps"], state["seconds"]
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)

    def save(self) -> None:
        """Write checkpoint and weights; a kill leaves the old files whole."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "steps": self.steps,
            "seconds": self.seconds,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        replace(self.checkpoint, lambda path: torch.save(state, path))
        half = {name: value.half().contiguous() for name, value in self.average.items()}
        replace(self.args.out / WEIGHTS, lambda path: save_file(half, path))

    def share_weights(self) -> None:
        """Give all processes the weights of the first."""
        if self.args.workers > 1:
            for value in self.model.state_dict().values():
                distributed.broadcast(value, 0)

    def progress(self, stage: str) -> float:
        """Fraction of a stage that is done."""
        return self.steps[stage] / max(1, getattr(self.args, stage))

    def rate(self, stage: str) -> float:
        """Learning rate of the next step of a stage, as a fraction of the peak."""
        done, total = self.steps[stage], getattr(self.args, stage)
        return min(1.0, (done + 1) / self.args.warmup, (total - done) / (self.args.decay * total))

    def advance(self, stage: str, loss: torch.Tensor) -> None:
        """Follow the gradient of a loss by one step, and count it."""
        set_rate(self.optimizers, self.args.lr * self.rate(stage))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.model, self.args.workers)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps[stage] += 1
        done = sum(self.steps.values())
        keep = min(0.998, done / (done + 50))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)

    def generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Random numbers of the next step: of all processes, and of this one (torch's are seeded too)."""
        done = sum(self.steps.values())
        torch.manual_seed(self.args.workers * (self.args.seed + done) + self.rank)
        return np.random.default_rng([self.args.seed, done]), np.random.default_rng([self.args.seed, done, self.rank])

    def first_seed(self) -> int:
        """First number of scenes and clips that no evaluation, and no earlier part of the run, has seen."""
        return 10_000_000 * (self.args.seed + 10) + 5_000_000 * self.rank + 1_000 * sum(self.steps.values())

    def picture_step(self, pool: PicturePool, stage: str) -> dict[str, float]:
        """One step on pictures, which counts for a stage; its figures."""
        args, (common, rng) = self.args, self.generators()
        pool.refresh(rng)
        images, clicks, boxes = make_batch(pool, rng, args.images // args.workers, args.clicks, args.boxes)
        features = encode(self.model, images)
        correct = str(common.choice(["clicks", "boxes"])) if common.random() < CORRECTED else None
        size = COARSE if self.progress(stage) < 1 - args.decay else FINE
        loss, by_click, by_box = picture_loss(self.model, features, clicks, boxes, size, correct)
        figures = {"loss": float(loss.detach()), "click": by_click, "box": by_box}
        weight = args.distil * (1 - self.progress("pictures") / DISTILLED)
        if weight > 0:
            distance = distillation_loss(features[-1], images, self.teacher)
            figures["distance"] = float(distance.detach())
            loss = loss + weight * distance
        self.advance(stage, loss)
        return figures

    def clip_step(self, pool: ClipPool) -> dict[str, float]:
        """One step on clips; its figures."""
        args, (common, rng) = self.args, self.generators()
        pool.refresh(rng)
        frames, kind = LENGTHS[int(common.random() < LONG)], str(common.choice(KINDS))
        true_memory = common.random() >= self.progress("clips") / TRUE_MEMORY
        clips = max(1, args.frames // args.workers // frames)
        batch = make_clip_batch(pool, rng, kind, clips, frames, args.objects)
        loss, first, later = clip_loss(self.model, batch, true_memory)
        self.advance("clips", loss)
        return {"clip loss": float(loss.detach()), "first": first, "later true" if true_memory else "later own": later}


def average_gradients(model: nn.Module, workers: int) -> None:
    """Replace every gradient by its mean over the processes."""
    if workers > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, mean in zip(gradients, flat.div_(workers).split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under another name, then put it in the place of the old one."""
    temporary = path.with_suffix(".tmp")
    write(temporary)
    os.replace(temporary, path)


class Log:
    """Moving averages of figures, on a progress bar and in a file."""

    def __init__(self, path: str | Path, progress: Progress):
        self.file, self.progress = open(path, "a", encoding="utf-8"), progress
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, figures: dict[str, float]) -> None:
        """Count the figures of one step."""
        for name, value in figures.items():
            total, weight = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = 0.98 * total + value, 0.98 * weight + 1

    def text(self) -> str:
        """The averages, on one line."""
        return " ".join(f"{name} {total / weight:.4f}" for name, (total, weight) in self.sums.items())

    def write(self, run: Run, stage: str) -> None:
        """Write a line to the file."""
        self.file.write(f"{stage} {run.steps[stage]} cpu {run.seconds:.0f}s {self.text()}\n")
        self.file.flush()


def train(args: argparse.Namespace) -> None:
    """Run or resume both stages, in as many processes as asked for."""
    args.out.mkdir(parents=True, exist_ok=True)
    if args.workers == 1:
        work(0, args, "")
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        multiprocessing.start_processes(work, (args, meeting), nprocs=args.workers, start_method="fork")


def work(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """Do the part of one process, which meets the others at a file."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // args.workers))
    torch.set_flush_denormal(True)
    if args.workers > 1:
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.workers)
    run = Run(args, rank)
    run.resume()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), disable=rank > 0) as progress:
        log = Log(args.out / "log.txt" if rank == 0 else os.devnull, progress)
        for stage in STAGES:
            train_stage(run, stage, log)


def train_stage(run: Run, stage: str, log: Log) -> None:
    """Do the steps of a stage that are left."""
    total = getattr(run.args, stage)
    if run.steps[stage] >= total:
        return
    task = log.progress.add_task(stage, total=total, completed=run.steps[stage])
    workers = run.args.workers
    spent, saved = run.seconds - workers * time.process_time(), time.monotonic()
    pictures = PicturePool(max(1, run.args.pool // workers), run.first_seed())
    clips = ClipPool(max(1, run.args.clip_pool // workers), run.first_seed()) if stage == "clips" else None
    if clips and run.steps[stage] == 0:
        start_memory(run.model, normalise(np.stack([clip.frames[0] for clip in clips.clips[:16]])))
        run.share_weights()
    while run.steps[stage] < total:
        if clips and run.steps[stage] % REVIEWED:
            log.add(run.clip_step(clips))
        else:
            log.add(run.picture_step(pictures, stage))
        run.seconds = spent + workers * time.process_time()
        log.progress.update(task, completed=run.steps[stage], description=f"{stage} {log.text()}")
        if run.steps[stage] % 25 == 0:
            log.write(run, stage)
        due = run.steps[stage] == total or time.monotonic() - saved > 60 * run.args.save_minutes
        if due and run.rank == 0:
            run.save()
            saved = time.monotonic()


def evaluate(args: argparse.Namespace) -> None:
    """Print the accuracy of the weights so far."""
    model = build_sam2_n()
    model.load_state_dict(load_file(args.out / WEIGHTS))
    count = args.evaluate
    pictures = picture_accuracy(model, count)
    print(
        f"{count} scenes, {pictures.objects} objects: mIoU from a click {pictures.click:.4f} (best of three), "
        f"{pictures.single_click:.4f} (single), from a box {pictures.box:.4f}"
    )
    scores = coin_scores(fit_upstream_predictor(model))
    print(
        f"coins: {found_coins(scores)} of {len(scores)} with IoU >= {GOOD_COIN}, "
        f"least {scores[0]:.3f}, median {np.median(scores):.3f}"
    )
    for prompt in ("mask", "click"):
        tracked, copied, objects = clip_accuracy(model, max(1, count // 10), prompt)
        print(
            f"clips from a {prompt}: J {tracked:.4f}, of the first mask on every frame {copied:.4f}, {objects} objects"
        )


def main() -> None:
    """Parse the command line, then train or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("run"), help="folder for checkpoint, log and weights")
    parser.add_argument("--pictures", type=int, default=4000, help="steps of the first stage (resumed ones included)")
    parser.add_argument("--clips", type=int, default=4000, help="steps of the second stage")
    parser.add_argument("--images", type=int, default=8, help="images a step")
    parser.add_argument("--clicks", type=int, default=4, help="clicks an image")
    parser.add_argument("--boxes", type=int, default=3, help="boxes an image")
    parser.add_argument("--frames", type=int, default=16, help="frames a step, of all clips together")
    parser.add_argument("--objects", type=int, default=3, help="objects a clip")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--distil", type=float, default=1.0, help="first weight of the teacher; 0 trains without it")
    parser.add_argument("--warmup", type=int, default=100, help="steps of linear warm-up")
    parser.add_argument("--decay", type=float, default=0.3, help="fraction of a stage over which the rate decays to 0")
    parser.add_argument("--pool", type=int, default=1500, help="scenes kept in memory")
    parser.add_argument("--clip-pool", type=int, default=150, help="clips kept in memory")
    parser.add_argument("--save-minutes", type=float, default=4, help="minutes between checkpoints")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that share a step's images")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, scenes and prompts")
    parser.add_argument("--evaluate", type=int, metavar="N", help="measure on N scenes and N/10 clips, do not train")
    args = parser.parse_args()
    (evaluate if args.evaluate else train)(args)


if __name__ == "__main__":
    main()
