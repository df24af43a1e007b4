"""The memory of SAM 2 as torch modules that export: what a frame knows of those before it.

Upstream's memory attention and memory encoder, with these rewrites, none of which changes what they compute:

- Rotary encodings are real arithmetic. The rows of the projections of queries and keys are permuted, so that the two
  channels that turn together lie half a head apart; products of queries and keys do not change.
- Memories are weighed before they are projected: the weights of a row sum to 1, so the two linear layers behind the
  cross-attention become one of as many inputs as a memory has channels.
- Self-attention of the first layer does not depend on the object: it is a function of its own, called once a frame.
- The scale behind the last layer of a block of the memory encoder is part of that layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from sam2.modeling.memory_attention import MemoryAttentionLayer
    from sam2.modeling.memory_encoder import MemoryEncoder
    from sam2.modeling.sam2_base import SAM2Base

_INPUT_POSITION = 0.1
"""Share of the position code that upstream's ``MemoryAttention`` adds to its input."""

_PERIOD = 10000.0
"""Longest period of the sine code of distances (upstream, ``get_1d_sine_pe``)."""


class _Linears(nn.Module):
    """Linear layers of an attention by name."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    out_proj: nn.Linear

    def __init__(self, **layers: nn.Linear) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class _Layer(nn.Module):
    """A layer of the memory attention with the weights of this module's description."""

    def __init__(self, layer: MemoryAttentionLayer) -> None:
        super().__init__()
        own, cross = layer.self_attn, layer.cross_attn_image
        self.self_attn = _Linears(
            q_proj=_half_split(own.q_proj), k_proj=_half_split(own.k_proj), v_proj=own.v_proj, out_proj=own.out_proj
        )
        self.cross_attn_image = _Linears(
            q_proj=_half_split(cross.q_proj),
            k_proj=_half_split(cross.k_proj),
            out_proj=_merge(cross.v_proj, cross.out_proj),
        )
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.linear1, self.linear2 = layer.linear1, layer.linear2

    def attend_frame(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Self-attention of ``(1, N, C)`` tokens."""
        attention, y = self.self_attn, self.norm1(x)
        q, k = (_rotate(projection(y), cos, sin) for projection in (attention.q_proj, attention.k_proj))
        return x + attention.out_proj(_attend(q, k, attention.v_proj(y)))

    def attend_memory(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, turns: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Attention of ``(1, N, C)`` tokens to ``(1, K, c)`` memories; `turns` are cosines and sines of both."""
        attention, (cos, sin, key_cos, key_sin) = self.cross_attn_image, turns
        q = _rotate(attention.q_proj(self.norm2(x)), cos, sin)
        k = _rotate(attention.k_proj(keys), key_cos, key_sin)
        x = x + attention.out_proj(_attend(q, k, values))
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class MemoryAttention(nn.Module):
    """Upstream's memory attention, rewritten; its parameters have upstream's names.

    Parameters
    ----------
    sam2 : SAM2Base
        With weights; they are shared where they do not change.
    """

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(layer) for layer in sam2.memory_attention.layers)
        self.norm = sam2.memory_attention.norm


def _half_split(layer: nn.Linear) -> nn.Linear:
    """Permute the rows of a projection to one head: pairs ``(2i, 2i + 1)`` become ``(i, i + d / 2)``."""
    count = layer.weight.shape[0]
    order = torch.cat([torch.arange(0, count, 2), torch.arange(1, count, 2)])
    return _linear(layer.weight[order], cast("torch.Tensor", layer.bias)[order])


def _merge(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return the linear layer that computes two of them in sequence."""
    right, left = first.weight.double(), second.weight.double()
    return _linear((left @ right).float(), (left @ first.bias.double() + second.bias.double()).float())


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
    return layer


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary encoding of ``(1, N, d)`` by ``(N, d / 2)`` cosines and sines."""
    half = cos.shape[-1]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of one head."""
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


class _Rotary(nn.Module):
    """Cosines and sines of the rotary encoding of a frame's tokens: ``(N, C / 2)``."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        side = sam2.sam_image_embedding_size
        turns = sam2.memory_attention.layers[0].self_attn.compute_cis(end_x=side, end_y=side)
        self.register_buffer("cos", turns.real.contiguous(), persistent=False)
        self.register_buffer("sin", turns.imag.contiguous(), persistent=False)


class AttendFrame(_Rotary):
    """Frame ``(1, C, h, w)`` -> tokens ``(1, h * w, C)`` after the first layer's self-attention."""

    position: torch.Tensor

    def __init__(self, sam2: SAM2Base, attention: MemoryAttention) -> None:
        super().__init__(sam2)
        self.memory_attention = attention
        codes = _positions(sam2.image_encoder.neck.position_encoding, sam2.sam_image_embedding_size)
        self.register_buffer("position", _INPUT_POSITION * codes, persistent=False)

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        x = frame.flatten(2).transpose(1, 2) + self.position
        return cast("_Layer", self.memory_attention.layers[0]).attend_frame(x, self.cos, self.sin)


class AttendMemory(_Rotary):
    """Tokens of a frame, memories and object pointers -> embedding ``(1, C, h, w)`` for the mask decoder."""

    position: torch.Tensor

    def __init__(self, sam2: SAM2Base, attention: MemoryAttention) -> None:
        super().__init__(sam2)
        self.memory_attention = attention
        self.maskmem_tpos_enc = sam2.maskmem_tpos_enc
        self.coded = bool(sam2.add_tpos_enc_to_obj_ptrs)
        self.obj_ptr_tpos_proj = sam2.obj_ptr_tpos_proj
        self.side = sam2.sam_image_embedding_size
        codes = _positions(sam2.memory_encoder.position_encoding, self.side)
        self.register_buffer("position", codes, persistent=False)
        width = sam2.hidden_dim if sam2.proj_tpos_enc_in_obj_ptrs else sam2.mem_dim
        index = torch.arange(width // 2, dtype=torch.float32)
        self.register_buffer("period", _PERIOD ** (2 * (index // 2) / (width // 2)), persistent=False)

    def forward(
        self,
        tokens: torch.Tensor,
        memories: torch.Tensor,
        slots: torch.Tensor,
        pointers: torch.Tensor,
        distances: torch.Tensor,
    ) -> torch.Tensor:
        frames, cells, channels = memories.shape
        count, width = pointers.shape
        pieces = width // channels
        table = self.maskmem_tpos_enc.reshape(-1, channels)
        time = table[torch.neg(slots) + (table.shape[0] - 1)].reshape(frames, 1, channels)
        pointers = pointers.reshape(count * pieces, channels)
        placed = (memories + self.position + time).reshape(frames * cells, channels)
        keys = torch.cat([placed, pointers + self._codes(distances, pieces, channels)])
        values = torch.cat([memories.reshape(frames * cells, channels), pointers])
        turns = self.cos, self.sin, *self._key_turns(frames, count * pieces)
        x = tokens
        for number, layer in enumerate(self.memory_attention.layers):
            layer = cast("_Layer", layer)
            if number:
                x = layer.attend_frame(x, self.cos, self.sin)
            x = layer.attend_memory(x, keys[None], values[None], turns)
        x = self.memory_attention.norm(x).transpose(1, 2)
        return x.reshape(1, width, self.side, self.side)

    def _codes(self, distances: torch.Tensor, pieces: int, channels: int) -> torch.Tensor:
        """``(P * pieces, c)`` codes of the distances of pointers in time; zeros where the model has none."""
        count = distances.shape[0]
        if not self.coded:
            return torch.zeros(count * pieces, channels)
        angle = distances[:, None] / cast("torch.Tensor", self.period)
        codes = self.obj_ptr_tpos_proj(torch.cat([torch.sin(angle), torch.cos(angle)], -1))
        return codes[:, None].expand(count, pieces, channels).reshape(count * pieces, channels)

    def _key_turns(self, frames: int, still: int) -> list[torch.Tensor]:
        """Cosines and sines of the keys: those of a frame for every memory; pointers do not turn."""
        cells, half = self.cos.shape
        ends = torch.ones(still, half), torch.zeros(still, half)
        return [
            torch.cat([turn[None].expand(frames, cells, half).reshape(frames * cells, half), end])
            for turn, end in zip((self.cos, self.sin), ends, strict=True)
        ]


def _positions(encoding: nn.Module, side: int) -> torch.Tensor:
    """Sine codes ``(1, side * side, C)`` of the cells of a frame."""
    codes = encoding(torch.zeros(1, 1, side, side))
    return codes.flatten(2).transpose(1, 2).detach()


class EncodeMemory(nn.Module):
    """Frame ``(1, C, h, w)``, masks ``(B, 1, S, S)`` and object scores ``(B, 1)`` -> memories ``(B, h * w, c)``."""

    def __init__(self, sam2: SAM2Base, layers: Mapping[str, nn.Linear]) -> None:
        super().__init__()
        self.memory_encoder = sam2.memory_encoder
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.no_obj_embed_spatial = sam2.no_obj_embed_spatial

    def forward(self, frame: torch.Tensor, masks: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        encoder = self.memory_encoder
        x = encoder.pix_feat_proj(frame) + encoder.mask_downsampler(masks)
        for number, block in enumerate(encoder.fuser.layers):
            y = block.norm(block.dwconv(x)).permute(0, 2, 3, 1)
            y = self.get_submodule(scaled_name(number))(block.act(block.pwconv1(y)))
            x = x + y.permute(0, 3, 1, 2)
        memory = encoder.out_proj(x).flatten(2).transpose(1, 2)
        if self.no_obj_embed_spatial is not None:
            memory = torch.where(score[..., None] > 0, memory, memory + self.no_obj_embed_spatial)
        return memory


def scaled_name(number: int) -> str:
    """Name of the last layer of a block of the memory encoder, its scale included."""
    return f"memory_block_{number}"


def scaled_layers(encoder: MemoryEncoder) -> dict[str, nn.Linear]:
    """Return the last layer of every block of the memory encoder, with the scale behind it, by name."""
    result = {}
    for number, block in enumerate(encoder.fuser.layers):
        scale = torch.ones(1) if block.gamma is None else block.gamma
        weight, bias = scale[:, None] * block.pwconv2.weight, scale * block.pwconv2.bias
        result[scaled_name(number)] = _linear(weight, bias)
    return result


class EmbedMask(nn.Module):
    """Mask ``(B, 1, S, S)`` of zeros and ones -> mask prompt ``(B, 1, S / 4, S / 4)``, and the pointer of an absent
    object ``(1, C)``."""

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.mask_downsample, self.no_obj_ptr = sam2.mask_downsample, sam2.no_obj_ptr

    def forward(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mask_downsample(mask), self.no_obj_ptr + 0.0
