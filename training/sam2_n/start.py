"""Weights that ``sam2_n`` starts from: prompt encoder and mask decoder of ``vit_t``, which also teaches the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import nn

from tvm_ahcq.models.sam.variants import EMBEDDED_WEIGHTS
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.models.sam2.sam2_n import build_sam2_n

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

_RENAMES = {
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
    "mlp.lin1": "mlp.layers.0",
    "mlp.lin2": "mlp.layers.1",
}

_IOU_SLOPE, _IOU_SHIFT = 6.0, -3.3
"""``sigmoid(6 x - 3.3)`` is close to `x` where predicted IoUs lie: 0.86 at 0.85, 0.92 at 0.95."""


def initial_model() -> SAM2Base:
    """Build ``sam2_n`` with all tensors of ``vit_t``'s prompt encoder and mask decoder; the rest is random.

    High-resolution features start small; the IoU head, which was linear, is fitted to the sigmoid behind it; a mask in
    place of clicks reaches the prompt encoder as logits of -10 and 10, averaged.
    """
    model = build_sam2_n()
    state = model.state_dict()
    with torch.no_grad():
        for name, value in _embedded_weights().items():
            if name.startswith("image_encoder."):
                continue
            for old, new in _RENAMES.items():
                name = name.replace(old, new)
            state[name].copy_(value)
        decoder = model.sam_mask_decoder
        for convolution in (decoder.conv_s0, decoder.conv_s1):
            convolution.weight.mul_(0.1)
            convolution.bias.zero_()
        nn.init.constant_(model.mask_downsample.weight, 20 / model.mask_downsample.weight.numel())
        nn.init.constant_(model.mask_downsample.bias, -10)
        last = decoder.iou_prediction_head.layers[-1]
        last.weight.mul_(_IOU_SLOPE)
        last.bias.mul_(_IOU_SLOPE).add_(_IOU_SHIFT)
    return model


def teacher() -> nn.Module:
    """Image encoder of ``vit_t`` with its trained weights: ``(B, 3, 256, 256)`` to ``(B, 128, 16, 16)``."""
    sam = build_sam_vit_t()
    sam.load_state_dict(_embedded_weights())
    return sam.image_encoder.requires_grad_(False)


def _embedded_weights() -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(EMBEDDED_WEIGHTS).items()}
