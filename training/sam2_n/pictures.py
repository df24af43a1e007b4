"""The first stage: pictures with clicks and boxes, as SAM was trained (arXiv 2304.02643, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from train_vit_t import (
    ScenePool,
    corrective_click,
    draw_objects,
    interior_pixel,
    loose_box,
    prompt_loss,
    resize,
)

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

SQUASHED = 0.3
"""Fraction of pictures that are squashed to a square from another format."""

SCORE_WEIGHT = 0.05
"""Of the loss of the object score, which is always that the object is there."""


class PicturePool(ScenePool):
    """Scenes in memory, some of them cut and stretched to a square again, as SAM 2 does with other formats."""

    def frame(self, rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut a strip of random height or width out of some pictures and stretch it to the full size."""
        if rng.random() >= SQUASHED:
            return image, labels
        size = len(image)
        count = int(rng.integers(size * 5 // 8, size))
        start, rows = int(rng.integers(size - count + 1)), rng.random() < 0.7
        index = (slice(start, start + count),) if rows else (slice(None), slice(start, start + count))
        pixels = torch.from_numpy(np.ascontiguousarray(image[index])).permute(2, 0, 1)[None]
        stretched = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
        nearest = start + (np.arange(size) * 2 + 1) * count // (2 * size)
        return stretched[0].permute(1, 2, 0).numpy(), labels[nearest] if rows else labels[:, nearest]


@dataclass(frozen=True)
class Prompts:
    """As many prompts of one kind for each image, ordered by image.

    Attributes
    ----------
    coords : torch.Tensor
        ``(P, N, 2)`` x, y in pixels; the prompt encoder adds 0.5 and a padding point.
    labels : torch.Tensor
        ``(P, N)``: 0 background, 1 foreground, 2 and 3 corners of a box.
    target : torch.Tensor
        ``(P, 1, S, S)`` float masks.
    """

    coords: torch.Tensor
    labels: torch.Tensor
    target: torch.Tensor


def make_prompts(found: list[tuple[np.ndarray, np.ndarray]], labels: list[int]) -> Prompts:
    """Put pairs of coordinates ``(N, 2)`` and boolean masks together."""
    coords = torch.from_numpy(np.stack([xy for xy, _ in found]).astype(np.float32))
    target = torch.from_numpy(np.stack([mask for _, mask in found])).float()[:, None]
    return Prompts(coords, torch.tensor(labels).expand(len(found), -1), target)


def make_batch(
    pool: ScenePool, rng: np.random.Generator, images: int, clicks: int, boxes: int
) -> tuple[torch.Tensor, Prompts, Prompts]:
    """Images ``(B, 3, S, S)``, and for each of them `clicks` single clicks and `boxes` boxes."""
    pixels, clicked, boxed = [], [], []
    for _ in range(images):
        scene = pool.draw(rng)
        pixels.append(scene.image.transpose(2, 0, 1))
        for number, index in enumerate(draw_objects(rng, scene, clicks + boxes)):
            mask, own = scene.mask(index), scene.labels == index
            if number < clicks:
                y, x = interior_pixel(own if own.any() else mask, rng)
                clicked.append((np.array([[x, y]]), mask))
            else:
                boxed.append((loose_box(rng, mask), mask))
    return torch.from_numpy(np.stack(pixels)), make_prompts(clicked, [1]), make_prompts(boxed, [2, 3])


def encode(model: SAM2Base, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """High-resolution features of strides 4 and 8, and the image embedding of stride 16."""
    high_0, high_1, embedding = model.forward_image(images)["backbone_fpn"]
    return high_0, high_1, embedding


@dataclass(frozen=True)
class Decoded:
    """All outputs of the mask decoder: ``(P, 4, h, w)`` logits, ``(P, 4)`` predicted IoU, ``(P, 1)`` object score."""

    logits: torch.Tensor
    iou: torch.Tensor
    score: torch.Tensor


def decode(
    model: SAM2Base,
    features: tuple[torch.Tensor, ...],
    prompts: Prompts,
    masks: torch.Tensor | None = None,
) -> Decoded:
    """Decode as many prompts for each image, without memory; `masks` ``(P, 1, h, w)`` are logits of an earlier pass."""
    count = len(prompts.coords) // len(features[-1])
    *high, embedding = (feature.repeat_interleave(count, 0) for feature in features)
    encoder = model.sam_prompt_encoder
    sparse, dense = encoder(points=(prompts.coords, prompts.labels), boxes=None, masks=masks)
    logits, iou, _, score = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding + model.no_mem_embed.reshape(1, -1, 1, 1),
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=high,
    )
    return Decoded(logits, iou, score)


def decoder_loss(decoded: Decoded, prompts: Prompts, size: int, single: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of masks, predicted IoU and object score at `size` pixels, and the ``(P,)`` IoU of the first mask.

    `single` says that a prompt leaves no doubt what is meant: then only the best of the three masks learns.
    """
    target = F.interpolate(prompts.target, (size, size), mode="area")
    single_prompt = torch.full((len(target),), single)
    loss, iou = prompt_loss(decoded.logits, decoded.iou, target, single_prompt)
    there = F.binary_cross_entropy_with_logits(decoded.score, torch.ones_like(decoded.score))
    return loss + SCORE_WEIGHT * there, iou


def corrected(prompts: Prompts, decoded: Decoded, size: int) -> tuple[Prompts, torch.Tensor]:
    """The prompts with a click on a wrong pixel of the mask of best predicted IoU, and the logits of that mask."""
    best = decoded.logits.detach()[torch.arange(len(decoded.logits)), decoded.iou.detach().argmax(1)][:, None]
    target = F.interpolate(prompts.target, (size, size), mode="area")[:, 0]
    xy, label = corrective_click(resize(best, size)[:, 0], target)
    coords = torch.cat([prompts.coords, xy * prompts.target.shape[-1] - 0.5], 1)
    return Prompts(coords, torch.cat([prompts.labels, label], 1), prompts.target), best


def picture_loss(
    model: SAM2Base,
    features: tuple[torch.Tensor, ...],
    clicks: Prompts,
    boxes: Prompts,
    size: int,
    correct: str | None,
) -> tuple[torch.Tensor, float, float]:
    """Loss at `size` pixels of one batch, and the mean IoU of the first mask by click and by box.

    `correct` names the prompts ("clicks" or "boxes") that get a second pass with one more click and the first
    pass's logits.
    """
    total, ious = features[-1].new_zeros(()), []
    for name, prompts in (("clicks", clicks), ("boxes", boxes)):
        decoded = decode(model, features, prompts)
        loss, iou = decoder_loss(decoded, prompts, size, single=name == "boxes")
        total = total + loss * len(iou) / (len(clicks.coords) + len(boxes.coords))
        ious.append(float(iou.mean()))
        if name == correct:
            more, best = corrected(prompts, decoded, size)
            total = total + decoder_loss(decode(model, features, more, best), more, size, single=True)[0]
    return total, ious[0], ious[1]


def distillation_loss(embedding: torch.Tensor, images: torch.Tensor, teacher: nn.Module) -> torch.Tensor:
    """Squared error of an image embedding, as a fraction of the variance of the teacher's."""
    with torch.no_grad():
        wanted = teacher(images)
    return F.mse_loss(embedding, wanted) / wanted.var()
