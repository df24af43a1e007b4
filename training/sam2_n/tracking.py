"""The second stage: clips with memory, as SAM 2 was trained (arXiv 2408.00714, appendix D).

A clip's frames are encoded together, once for all its objects. The first frame is prompted by a click, a box or a mask;
on the others the model has its memories alone, which are of the true masks at first and of its own later.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from train_vit_t import interior_pixel, loose_box, mask_losses, recolour

from tvm_ahcq.clips import Clip, generate

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

KINDS = ("click", "box", "mask")
"""Prompts on the first frame."""

SCORE_WEIGHT = 0.2
"""Of the loss of the object score: that the object shows on a frame."""

_ABSENT, _CERTAIN = -1024.0, 10.0
"""Logits of masks of an object that does not show (upstream's ``NO_OBJ_SCORE``), and of pixels of a true mask."""

_FIRST_MEMORY = 0.05
"""What branches of the memory attention add at first, as a fraction of their random weights."""


def normalise(frames: np.ndarray) -> torch.Tensor:
    """Turn frames ``(T, S, S, 3)`` uint8 into the model's input ``(T, 3, S, S)``."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(frames).float() / 255 - mean) / std).permute(0, 3, 1, 2)


class ClipPool:
    """A pool of clips in memory, refreshed now and then, drawn with random augmentation."""

    def __init__(self, size: int, first_seed: int):
        with multiprocessing.get_context("fork").Pool() as pool:
            self.clips = pool.map(generate, range(first_seed, first_seed + size), chunksize=4)
        self.next_seed = first_seed + size

    def refresh(self, rng: np.random.Generator) -> None:
        """Replace one random clip by a new one."""
        self.clips[rng.integers(len(self.clips))] = generate(self.next_seed)
        self.next_seed += 1

    def draw(self, rng: np.random.Generator, frames: int) -> Clip:
        """Some frames of a clip: at a random pace, forwards or backwards, flipped, turned, recoloured (float32)."""
        while True:
            clip = self.clips[rng.integers(len(self.clips))]
            pace = int(rng.integers(1, (len(clip.frames) - 1) // max(1, frames - 1) + 1))
            pace = min(pace, 3)
            start = int(rng.integers(len(clip.frames) - (frames - 1) * pace))
            index = start + pace * np.arange(frames)
            if rng.random() < 0.5:
                index = index[::-1]
            turns, flip = int(rng.integers(4)), rng.random() < 0.5
            pixels, labels = (np.rot90(a[index], turns, (1, 2)) for a in (clip.frames, clip.labels))
            if flip:
                pixels, labels = pixels[:, :, ::-1], labels[:, :, ::-1]
            result = Clip(recolour(rng, pixels), np.ascontiguousarray(labels))
            if result.objects():
                return result


@dataclass(frozen=True)
class ClipBatch:
    """Clips with as many objects each.

    Attributes
    ----------
    images : torch.Tensor
        ``(T, C, 3, S, S)`` frames of C clips.
    targets : torch.Tensor
        ``(T, B, S, S)`` float masks of B objects, ordered by clip; empty where one does not show.
    kind : str
        Prompt on the first frame, of :data:`KINDS`.
    coords, labels : torch.Tensor
        ``(B, N, 2)`` and ``(B, N)``: the click or box on the first frame.
    """

    images: torch.Tensor
    targets: torch.Tensor
    kind: str
    coords: torch.Tensor
    labels: torch.Tensor


def make_clip_batch(
    pool: ClipPool, rng: np.random.Generator, kind: str, clips: int, frames: int, objects: int
) -> ClipBatch:
    """Draw `clips` clips of `frames` frames with `objects` objects each (some twice where there are fewer)."""
    images, targets, coords = [], [], []
    for _ in range(clips):
        clip = pool.draw(rng, frames)
        images.append(clip.frames.transpose(0, 3, 1, 2))
        shown = clip.objects()
        for index in rng.choice(shown, objects, replace=len(shown) < objects):
            masks = clip.masks(int(index))
            targets.append(masks)
            coords.append(loose_box(rng, masks[0]) if kind == "box" else [interior_pixel(masks[0], rng)[::-1]])
    labels = torch.tensor([2, 3] if kind == "box" else [1], dtype=torch.int32)
    return ClipBatch(
        torch.from_numpy(np.stack(images, 1)),
        torch.from_numpy(np.stack(targets, 1)).float(),
        kind,
        torch.from_numpy(np.array(coords, np.float32)),
        labels.expand(len(coords), -1),
    )


class Tracker:
    """The tracking step of ``SAM2Base`` on B objects, with all outputs of the mask decoder, for training.

    Attributes
    ----------
    outputs : dict
        Memories and object pointers of past frames, as ``SAM2Base.track_step`` takes them.
    """

    def __init__(self, model: SAM2Base, batch: ClipBatch):
        self.model, self.batch = model, batch
        self.outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        backbone = model.forward_image(batch.images.flatten(0, 1))
        _, self.features, self.positions, self.sizes = model._prepare_backbone_features(backbone)

    def frame(self, values: list[torch.Tensor], time: int) -> list[torch.Tensor]:
        """Features ``(HW, T * C, D)`` of one frame, repeated for the objects of each clip: ``(HW, B, D)``."""
        frames, clips = self.batch.images.shape[:2]
        count = self.batch.targets.shape[1] // clips
        return [value.unflatten(1, (frames, clips))[:, time].repeat_interleave(count, 1) for value in values]

    def loss(self, time: int, true_memory: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment one frame, after those before it, and remember it: its loss and the ``(B,)`` IoU of the chosen mask.

        `true_memory` says that the memory is of the true mask in place of the model's own.
        """
        model, batch, first = self.model, self.batch, time == 0
        features, positions = self.frame(self.features, time), self.frame(self.positions, time)
        given = first and batch.kind == "mask"
        *high, embedding = (x.permute(1, 2, 0).unflatten(2, size) for x, size in zip(features, self.sizes, strict=True))
        if not given:
            embedding = model._prepare_memory_conditioned_features(
                frame_idx=time,
                is_init_cond_frame=first,
                current_vision_feats=features[-1:],
                current_vision_pos_embeds=positions[-1:],
                feat_sizes=self.sizes[-1:],
                output_dict=self.outputs,
                num_frames=len(batch.images),
            )
        masks, iou, tokens, score = self._decode(embedding, high, first)
        target = batch.targets[time]
        loss, true_iou, shown = _frame_loss(masks, iou, score, target)
        single = first and batch.kind != "click"
        chosen = torch.zeros_like(iou[:, 0], dtype=torch.long) if single else 1 + iou[:, 1:].argmax(1)
        rows = torch.arange(len(chosen))
        logits = torch.where(score[..., None] > 0, masks[rows, chosen], _ABSENT)[:, None]
        large = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
        appears = score
        if given or true_memory:
            large, appears = _CERTAIN * (2 * target[:, None] - 1), shown[:, None] - 0.5
        self._remember(time, features, large, appears, tokens[rows, chosen])
        return loss, true_iou[rows, chosen][shown > 0]

    def _decode(self, embedding: torch.Tensor, high: list[torch.Tensor], first: bool) -> tuple[torch.Tensor, ...]:
        """All masks, predicted IoU, mask tokens and object scores; only the first frame is prompted."""
        model, batch = self.model, self.batch
        coords, labels, mask = torch.zeros(len(embedding), 1, 2), -torch.ones(len(embedding), 1), None
        if first and batch.kind == "mask":
            mask = model.mask_downsample(batch.targets[0][:, None])
        elif first:
            coords, labels = batch.coords, batch.labels
        sparse, dense = model.sam_prompt_encoder(points=(coords, labels), boxes=None, masks=mask)
        return model.sam_mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=high,
        )

    def _remember(
        self,
        time: int,
        features: list[torch.Tensor],
        masks: torch.Tensor,
        score: torch.Tensor,
        tokens: torch.Tensor,
    ) -> None:
        """Keep memory and object pointer of a frame, from ``(B, 1, S, S)`` logits and the token of the chosen mask."""
        model = self.model
        memory, positions = model._encode_new_memory(features, self.sizes, masks, score, time == 0)
        appears = (score > 0).float()
        pointer = appears * model.obj_ptr_proj(tokens) + (1 - appears) * model.no_obj_ptr
        kind = "cond_frame_outputs" if time == 0 else "non_cond_frame_outputs"
        self.outputs[kind][time] = {"maskmem_features": memory, "maskmem_pos_enc": positions, "obj_ptr": pointer}


def _frame_loss(
    masks: torch.Tensor, predicted: torch.Tensor, score: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss of one frame, the ``(B, 4)`` true IoU, and 1 for each object that shows; the others have no mask loss."""
    small = F.interpolate(target[:, None], masks.shape[-2:], mode="area")
    shown = (small.flatten(1).max(1)[0] > 0.5).float()
    losses, iou = mask_losses(masks, small)
    three = losses[:, 1:]
    each = losses[:, 0] + 0.9 * three.amin(1) + 0.1 * three.mean(1) + (predicted - iou).square().sum(1)
    there = F.binary_cross_entropy_with_logits(score[:, 0], shown)
    return (each * shown).sum() / shown.sum().clamp(min=1) + SCORE_WEIGHT * there, iou, shown


def clip_loss(model: SAM2Base, batch: ClipBatch, true_memory: bool) -> tuple[torch.Tensor, float, float]:
    """Mean loss over the frames, mean IoU on the first frame, and on the others (of objects that show)."""
    tracker = Tracker(model, batch)
    results = [tracker.loss(time, true_memory) for time in range(len(batch.images))]
    later = torch.cat([iou for _, iou in results[1:]])
    total = torch.stack([loss for loss, _ in results]).mean()
    return total, float(results[0][1].mean()), float(later.mean().nan_to_num(0))


@torch.no_grad()
def start_memory(model: SAM2Base, images: torch.Tensor) -> None:
    """Make the memory attention nearly the identity: small branches, and its last norm fitted to embeddings.

    Parameters
    ----------
    model : SAM2Base
        Trained on pictures; changed in place.
    images : torch.Tensor
        ``(B, 3, S, S)`` examples.
    """
    embedding = model.forward_image(images)["backbone_fpn"][-1].flatten(2).transpose(1, 2).flatten(0, 1)
    plain = F.layer_norm(embedding, embedding.shape[-1:])
    spread, centred = plain - plain.mean(0), embedding - embedding.mean(0)
    weight = (spread * centred).sum(0) / spread.square().sum(0)
    model.memory_attention.norm.weight.copy_(weight)
    model.memory_attention.norm.bias.copy_(embedding.mean(0) - weight * plain.mean(0))
    for layer in model.memory_attention.layers:
        for branch in (layer.self_attn.out_proj, layer.cross_attn_image.out_proj, layer.linear2):
            branch.weight.mul_(_FIRST_MEMORY)
            branch.bias.zero_()
