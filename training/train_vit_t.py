"""Train ``vit_t`` on generated scenes: ``python training/train_vit_t.py --steps 6000 --out run/``.

Follows SAM's recipe (arXiv 2304.02643, appendix A): focal and dice loss on the best of three masks for an ambiguous
prompt, mean squared error on the predicted IoU, and a second pass with a corrective click and the first pass's logits.
The learning rate warms up, stays constant, and decays linearly over the last part of the run; resume with more
``--steps`` to lengthen a run. The same command resumes an interrupted run from its last checkpoint.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file

from tvm_ahcq import scenes
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t

COARSE, FINE = 64, 128
"""Masks are compared at the decoder's own resolution first and at twice that during the decay, for sharper outlines."""


class ScenePool:
    """A pool of scenes in memory, refreshed by one new scene a step, drawn with random augmentation."""

    def __init__(self, size: int, first_seed: int):
        with multiprocessing.get_context("fork").Pool() as pool:
            self.scenes = pool.map(scenes.generate, range(first_seed, first_seed + size), chunksize=16)
        self.next_seed = first_seed + size

    def refresh(self, rng: np.random.Generator) -> None:
        """Replace one random scene by a new one."""
        self.scenes[rng.integers(len(self.scenes))] = scenes.generate(self.next_seed)
        self.next_seed += 1

    def draw(self, rng: np.random.Generator) -> scenes.Scene:
        """One augmented scene: flipped, turned, recoloured and sometimes of another format (see :meth:`frame`)."""
        while True:
            scene = self.scenes[rng.integers(len(self.scenes))]
            turns, flip = int(rng.integers(4)), rng.random() < 0.5
            image, labels = (np.rot90(a, turns) for a in (scene.image, scene.labels))
            if flip:
                image, labels = image[:, ::-1], labels[:, ::-1]
            image, labels = self.frame(rng, recolour(rng, image), labels.copy())
            result = scenes.Scene(image, labels, scene.parents)
            if len(result.objects()):
                return result

    def frame(self, rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut some pictures short and pad them below or to the right, as SAM does with pictures that are not square."""
        if rng.random() < 0.3:
            cut = int(rng.integers(image.shape[0] * 5 // 8, image.shape[0]))
            axis = slice(cut, None)
            index = (axis,) if rng.random() < 0.7 else (slice(None), axis)
            image[index], labels[index] = 0, 0
        return image, labels


def recolour(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change the colours of a uint8 RGB picture at random, and normalise it to float32 as SAM does."""
    image = image.astype(np.float32) / 255
    choice = rng.random()
    if choice < 0.15:
        image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    elif choice < 0.6:
        image = image[..., rng.permutation(3)] * rng.uniform(0.75, 1.15, 3) + rng.uniform(-0.1, 0.1, 3)
    if rng.random() < 0.2:
        image = 1 - image
    image = np.clip(image, 0, 1) ** rng.uniform(0.7, 1.4)
    image = (image * 255 - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    return image.astype(np.float32)


def interior_pixel(own: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """A random (y, x) pixel of the boolean mask `own`, more likely one away from the outline."""
    flat = np.flatnonzero(own)
    best, score = None, -1
    for candidate in flat[rng.integers(len(flat), size=int(rng.choice([1, 6])))]:
        y, x = divmod(int(candidate), own.shape[1])
        hits = 0
        for r in (3, 6, 10, 16):
            for dy, dx in ((-r, 0), (r, 0), (0, -r), (0, r)):
                yy, xx = y + dy, x + dx
                hits += 0 <= yy < own.shape[0] and 0 <= xx < own.shape[1] and bool(own[yy, xx])
        if hits > score:
            best, score = (y, x), hits
    return best


def draw_objects(rng: np.random.Generator, scene: scenes.Scene, count: int) -> list[int]:
    """Numbers of `count` random objects of a scene, more often of those that have parts or are one."""
    objects = scene.objects()
    weights = np.array([1.5 if (scene.parents == i)[1:].any() or scene.parents[i] else 1.0 for i in objects])
    chosen = rng.choice(objects, size=count, p=weights / weights.sum(), replace=len(objects) < count)
    return [int(index) for index in chosen]


def loose_box(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Corners ``((x0, y0), (x1, y1))`` of the box around a mask, often shifted a little at random."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([[xs[0], ys[0]], [xs[-1] + 1, ys[-1] + 1]], np.float32)
    jitter = rng.normal(0, 0.03, (2, 2)) * (box[1] - box[0]) if rng.random() < 0.6 else 0
    return box + np.clip(jitter, -10, 10)


def make_batch(pool: ScenePool, rng: np.random.Generator, images: int, prompts: int) -> dict[str, torch.Tensor]:
    """Images, and for each image `prompts` prompts of two tokens (a click and padding, or a box) with their masks."""
    pixels, coords, labels, targets = [], [], [], []
    for _ in range(images):
        scene = pool.draw(rng)
        pixels.append(scene.image.transpose(2, 0, 1))
        for index in draw_objects(rng, scene, prompts):
            mask = scene.mask(index)
            own = scene.labels == index
            if rng.random() < 0.58 and own.any():
                y, x = interior_pixel(own, rng)
                coords.append([[x + 0.5, y + 0.5], [0, 0]])
                labels.append([1, -1])
            else:
                coords.append(loose_box(rng, mask))
                labels.append([2, 3])
            targets.append(mask)
    return {
        "image": torch.from_numpy(np.stack(pixels)),
        "coords": torch.from_numpy(np.array(coords, np.float32)),
        "labels": torch.tensor(labels),
        "target": torch.from_numpy(np.stack(targets)).float(),
    }


def embed_prompts(sam, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sparse embedding of points (labels 0, 1), box corners (2, 3) and padding (-1); coords are pixel centres."""
    encoder = sam.prompt_encoder
    table = torch.cat([encoder.not_a_point_embed.weight, *[e.weight for e in encoder.point_embeddings]])
    position = encoder.pe_layer.forward_with_coords(coords, encoder.input_image_size)
    return position * (labels >= 0)[..., None] + table[labels + 1]


def decode(sam, embedding, sparse, masks=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Upstream's ``MaskDecoder.predict_masks`` for several images at once: (P, 4, h, w) logits and (P, 4) IoUs."""
    decoder, encoder = sam.mask_decoder, sam.prompt_encoder
    count = sparse.shape[0]
    dense = encoder.mask_downscaling(masks) if masks is not None else encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None].expand(count, -1, -1)
    tokens = torch.cat([tokens, sparse], 1)
    src = embedding.repeat_interleave(count // embedding.shape[0], 0) + dense
    b, c, h, w = src.shape
    hidden, src = decoder.transformer(src, encoder.get_dense_pe().expand(b, -1, -1, -1), tokens)
    upscaled = decoder.output_upscaling(src.transpose(1, 2).reshape(b, c, h, w))
    hyper = torch.stack([mlp(hidden[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1)
    logits = (hyper @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
    return logits, decoder.iou_prediction_head(hidden[:, 0])


def resize(x: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear resize of (P, C, h, w) to `size`, as SAM's post-processing does it."""
    return x if x.shape[-1] == size else F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def mask_losses(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """20 focal + dice of (P, M, s, s) logits against (P, 1, s, s) soft targets; and the true IoU, both (P, M)."""
    bce = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    p = logits.sigmoid()
    focal = (bce * (p - target).square()).mean((-2, -1))
    dice = 1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    with torch.no_grad():
        a, b = logits > 0, target > 0.5
        iou = (a & b).sum((-2, -1)) / (a | b).sum((-2, -1)).clamp(min=1)
    return 20 * focal + dice + 0.25 * bce.mean((-2, -1)), iou


def prompt_loss(logits, predicted, target, single: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Total loss of one decoder pass and the (P,) IoU of its single-mask output."""
    logits = resize(logits, target.shape[-1])
    loss, iou = mask_losses(logits.float(), target)
    many = loss[:, 1:]
    total = loss[:, 0] + torch.where(single, many.amin(1), 0.9 * many.amin(1) + 0.1 * many.mean(1))
    return (total + (predicted.float() - iou).square().sum(1)).mean(), iou[:, 0].detach()


def corrective_click(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A click at a random wrong pixel of (P, s, s) logits: coordinates (P, 1, 2) in [0, 1], labels (P, 1)."""
    size = logits.shape[-1]
    wrong = (logits > 0) != (target > 0.5)
    weight = wrong.float() + 1e-6 * (target > 0.5) + 1e-12
    index = torch.multinomial(weight.flatten(1), 1)
    y, x = index // size, index % size
    return torch.stack([x + 0.5, y + 0.5], -1) / size, (target.flatten(1).gather(1, index) > 0.5).long()


def training_step(sam, batch, second_pass: bool, loss_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and mean single-mask IoU of one batch."""
    with torch.autocast(batch["image"].device.type, torch.bfloat16):
        embedding = sam.image_encoder(batch["image"])
        sparse = embed_prompts(sam, batch["coords"], batch["labels"])
        logits, predicted = decode(sam, embedding, sparse)
    target = F.interpolate(batch["target"][:, None], (loss_size, loss_size), mode="area")
    click = batch["labels"][:, 0] == 1
    loss, iou = prompt_loss(logits, predicted, target, ~click)
    if second_pass:
        best = logits.detach()[torch.arange(len(logits)), predicted.detach().argmax(1)].float()
        xy, label = corrective_click(resize(best[:, None], loss_size)[:, 0], target[:, 0])
        coords = torch.cat([xy * batch["image"].shape[-1], batch["coords"]], 1)
        labels = torch.cat([label, batch["labels"]], 1)
        with torch.autocast(batch["image"].device.type, torch.bfloat16):
            logits, predicted = decode(sam, embedding, embed_prompts(sam, coords, labels), best[:, None])
        again, _ = prompt_loss(logits, predicted, target, torch.ones_like(click))
        loss = loss + again
    return loss, iou


def make_optimizers(sam, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer blocks, AdamW for everything else."""
    matrices, rest, plain = [], [], []
    for name, parameter in sam.named_parameters():
        inner = ("blocks." in name or "transformer.layers." in name) and "rel_pos" not in name
        if parameter.ndim == 2 and inner:
            matrices.append(parameter)
        else:
            (rest if parameter.ndim >= 2 and "embed" not in name and "token" not in name else plain).append(parameter)
    adamw = torch.optim.AdamW(
        [{"params": rest, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], lr=lr, betas=(0.9, 0.99)
    )
    muon = torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [adamw, muon]


class Run:
    """Model, optimizers, and the moving average of the weights, which is what is kept in the end."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.step = args, 0
        self.sam = build_sam_vit_t().train().to(args.device)
        self.optimizers = make_optimizers(self.sam, args.lr, args.lr)
        self.average = {name: value.clone() for name, value in self.sam.state_dict().items()}
        self.checkpoint = args.out / "checkpoint.pt"

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True, map_location=self.args.device)
            self.sam.load_state_dict(state["model"])
            self.average, self.step = state["average"], state["step"]
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)

    def save(self) -> None:
        """Write checkpoint and weights; a kill leaves the old files whole."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {"model": self.sam.state_dict(), "average": self.average, "step": self.step, "optimizers": optimizers}
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        os.replace(self.checkpoint.with_suffix(".tmp"), self.checkpoint)
        half = {name: value.half().cpu().contiguous() for name, value in self.average.items()}
        save_file(half, self.args.out / "vit_t.tmp")
        os.replace(self.args.out / "vit_t.tmp", self.args.out / "vit_t.safetensors")

    def advance(self, pool: ScenePool) -> tuple[float, float, float]:
        """One step; its loss, and mean IoU of single masks from clicks and from boxes."""
        args, rng = self.args, np.random.default_rng([self.args.seed, self.step])
        pool.refresh(rng)
        decay = min(1.0, (args.steps - self.step) / (args.decay * args.steps))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min(1.0, (self.step + 1) / args.warmup) * decay
        batch = {k: v.to(args.device) for k, v in make_batch(pool, rng, args.images, args.prompts).items()}
        loss, iou = training_step(self.sam, batch, rng.random() < 0.2, COARSE if decay == 1.0 else FINE)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(0.998, self.step / (self.step + 50))
        with torch.no_grad():
            for name, value in self.sam.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        click = batch["labels"][:, 0] == 1
        by_click, by_box = (float(iou[chosen].mean().nan_to_num(0.5)) for chosen in (click, ~click))
        return float(loss.detach()), by_click, by_box


def train(args: argparse.Namespace) -> None:
    """Run or resume a training run."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    run.resume()
    # scenes that no earlier part of the run has seen
    pool = ScenePool(args.pool, first_seed=10_000_000 * args.seed + 1_000_000 + 100_000 * (run.step // 100))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    figures, first, started = np.zeros(3), run.step, time.time()
    with (args.out / "log.txt").open("a") as log, Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("train", total=args.steps, completed=run.step)
        while run.step < args.steps:
            figures = 0.98 * figures + 0.02 * np.array(run.advance(pool))
            loss, by_click, by_box = figures / (1 - 0.98 ** (run.step - first))
            progress.update(task, completed=run.step, description=f"click {by_click:.3f} box {by_box:.3f}")
            if run.step % 50 == 0:
                passed = time.time() - started
                log.write(f"{run.step} {passed:.0f}s loss {loss:.3f} click {by_click:.4f} box {by_box:.4f}\n")
                log.flush()
            if run.step % args.save_every == 0 or run.step == args.steps:
                run.save()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("run"), help="folder for checkpoint, log and weights")
    parser.add_argument("--steps", type=int, default=4800, help="length of the whole run (resumed steps included)")
    parser.add_argument("--images", type=int, default=8, help="images a step")
    parser.add_argument("--prompts", type=int, default=6, help="prompts an image")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--warmup", type=int, default=200, help="steps of linear warm-up")
    parser.add_argument("--decay", type=float, default=0.3, help="fraction of the run over which the rate decays to 0")
    parser.add_argument("--pool", type=int, default=3000, help="scenes kept in memory")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, scenes and prompts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
