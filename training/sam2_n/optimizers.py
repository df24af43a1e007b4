"""The two optimizers of ``sam2_n`` and the learning rate of each part."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from .muon import Muon

_PRETRAINED = ("sam_prompt_encoder.", "sam_mask_decoder.transformer.", "sam_mask_decoder.output_", "sam_mask_decoder.m")
"""Parts that start from trained weights and learn more slowly."""

_INNER = ("trunk.blocks.", "transformer.layers.", "memory_attention.layers.", "pwconv")
"""Matrices inside these are orthogonalised."""

PRETRAINED_RATE = 0.3
"""Of the learning rate, for the pretrained parts."""


def make_optimizers(model: nn.Module, rank: int = 0, workers: int = 1) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer blocks, AdamW for everything else; see :func:`set_rate`.

    `rank` and `workers` are as in :class:`Muon`.
    """
    matrices, others = defaultdict(list), defaultdict(list)
    for name, parameter in model.named_parameters():
        factor = PRETRAINED_RATE if name.startswith(_PRETRAINED) else 1.0
        if parameter.ndim == 2 and any(part in name for part in _INNER):
            matrices[factor].append(parameter)
        else:
            decays = parameter.ndim >= 2 and not any(word in name for word in ("embed", "token", "tpos"))
            others[factor, 0.02 if decays else 0.0].append(parameter)
    inner = [{"params": params, "factor": factor} for factor, params in matrices.items()]
    groups = [{"params": params, "factor": factor, "weight_decay": decay} for (factor, decay), params in others.items()]
    return [Muon(inner, lr=0.0, rank=rank, workers=workers), torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99))]


def set_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of all parts."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
