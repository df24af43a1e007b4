"""Upstream's own memory attention behind the functions of this project, to time it and to compare with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import nn

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


class UpstreamFrame(nn.Module):
    """``attend_frame`` that attends to nothing: upstream repeats the first self-attention for every object."""

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        return frame.flatten(2).transpose(1, 2)


class UpstreamMemory(nn.Module):
    """``attend_memory`` by ``sam2.memory_attention``."""

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.sam2, self.side = sam2, sam2.sam_image_embedding_size
        for layer in sam2.memory_attention.layers:  # no part of the weights, and so not read from a checkpoint
            for attention in (layer.self_attn, layer.cross_attn_image):
                attention.freqs_cis = attention.compute_cis(end_x=self.side, end_y=self.side)

    def forward(
        self,
        tokens: torch.Tensor,
        memories: torch.Tensor,
        slots: torch.Tensor,
        pointers: torch.Tensor,
        distances: torch.Tensor,
    ) -> torch.Tensor:
        sam2, channels, width = self.sam2, memories.shape[-1], pointers.shape[-1]
        table = sam2.maskmem_tpos_enc.reshape(-1, channels)
        codes = self._codes(sam2.memory_encoder.position_encoding, channels) + table[len(table) - 1 - slots][:, None]
        tokens_of_objects = pointers.reshape(-1, channels)
        times = torch.zeros_like(tokens_of_objects)
        if sam2.add_tpos_enc_to_obj_ptrs:
            size = width if sam2.proj_tpos_enc_in_obj_ptrs else channels
            each = sam2.obj_ptr_tpos_proj(get_1d_sine_pe(distances, dim=size).to(pointers.dtype))
            times = each.repeat_interleave(width // channels, 0)
        found = sam2.memory_attention(
            curr=tokens.transpose(0, 1),
            curr_pos=self._codes(sam2.image_encoder.neck.position_encoding, width).transpose(0, 1),
            memory=torch.cat([memories.reshape(-1, channels), tokens_of_objects])[:, None],
            memory_pos=torch.cat([codes.reshape(-1, channels), times])[:, None],
            num_obj_ptr_tokens=len(tokens_of_objects),
        )
        return cast("torch.Tensor", found).permute(1, 2, 0).reshape(1, width, self.side, self.side)

    def _codes(self, encoding: nn.Module, channels: int) -> torch.Tensor:
        """``(1, cells, C)`` sine codes of a frame."""
        example = torch.zeros(1, channels, self.side, self.side, dtype=self.sam2.maskmem_tpos_enc.dtype)
        return encoding(example).flatten(2).transpose(1, 2).to(example.dtype)


EAGER = {"attend_frame": UpstreamFrame, "attend_memory": UpstreamMemory}
"""Modules whose code cannot be exported, by the function that they stand for."""
