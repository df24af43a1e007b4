"""SAM as Relax functions ``encode_image``, ``decode`` and ``decode_mask`` in one IRModule.

The wrappers call the upstream submodules. Two things of upstream's ``forward`` are written anew: boolean assignment by
label, which does not export, and ``repeat_interleave``, which copies the image once a prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import tvm
from torch import nn
from tvm import relax

from tvm_ahcq.models.export import export_module

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_LABELS = {-1.0: None, 0.0: 0, 1.0: 1, 2.0: 2, 3.0: 3}
"""Prompt label -> row of ``prompt_encoder.point_embeddings``; None is padding (``not_a_point_embed``)."""


class _EncodeImage(nn.Module):
    """(1, 3, S, S) normalised image -> (1, C, h, w) embedding."""

    def __init__(self, sam: Sam):
        super().__init__()
        self.image_encoder = sam.image_encoder

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.image_encoder(image)


def embed_points(encoder: Any, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B, N, 2) pixels and (B, N) labels -> (B, N, C), as a prompt encoder's ``_embed_points`` and ``_embed_boxes``."""
    encoded = encoder.pe_layer._pe_encoding((coords + 0.5) / encoder.input_image_size[0])
    tokens = encoded
    for label, row in _LABELS.items():
        chosen = (labels == label).unsqueeze(-1)
        padding = row is None
        token = encoder.not_a_point_embed.weight if padding else encoded + encoder.point_embeddings[row].weight
        tokens = torch.where(chosen, token, tokens)
    return tokens


class _Decoder(nn.Module):
    """Prompts -> four masks and their predicted IoU; what both ways of prompting share."""

    def __init__(self, sam: Sam):
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.register_buffer("dense_pe", sam.prompt_encoder.get_dense_pe().detach(), persistent=False)

    def predict(self, source: torch.Tensor, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1 or B, C, h, w) embedding plus mask embedding and (B, N, C) prompts -> (B, 4, 4h, 4w) and (B, 4).

        Without a mask prompt the image side enters the transformer once, not once a prompt: its first projections are
        shared, and the batch appears when it first attends to the prompts.
        """
        decoder = self.mask_decoder
        count = decoder.num_mask_tokens
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).unsqueeze(0)
        tokens = torch.cat([own.expand(prompts.shape[0], -1, -1), prompts], dim=1)
        tokens, source_tokens = decoder.transformer(source, self.dense_pe, tokens)

        channels, height, width = source.shape[1:]
        upscaled = decoder.output_upscaling(source_tokens.transpose(1, 2).reshape(-1, channels, height, width))
        kernels = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        masks = torch.stack(kernels, dim=1) @ upscaled.flatten(2)
        return masks.reshape(-1, count, *upscaled.shape[2:]), decoder.iou_prediction_head(tokens[:, 0])


class _Decode(_Decoder):
    """Prompts without a mask."""

    def forward(
        self, embedding: torch.Tensor, point_coords: torch.Tensor, point_labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return self.predict(embedding + dense, embed_points(self.prompt_encoder, point_coords, point_labels))


class _DecodeMask(_Decoder):
    """Prompts with a mask from an earlier call (low-resolution logits)."""

    def forward(
        self, embedding: torch.Tensor, point_coords: torch.Tensor, point_labels: torch.Tensor, mask_input: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dense = self.prompt_encoder.mask_downscaling(mask_input)
        return self.predict(embedding + dense, embed_points(self.prompt_encoder, point_coords, point_labels))


_WRAPPERS = {"encode_image": _EncodeImage, "decode": _Decode, "decode_mask": _DecodeMask}

_SYMBOLIC = {"point_coords": {0: "B", 1: "N"}, "point_labels": {0: "B", 1: "N"}, "mask_input": {0: "B"}}


def wrapper(sam: Sam, name: str) -> nn.Module:
    """Return the torch form of a function, in evaluation mode; any exporter can take it."""
    return _WRAPPERS[name](sam).eval()


def example_inputs(sam: Sam, name: str) -> dict[str, torch.Tensor]:
    """Return zeros of the shapes that a function takes, two prompts of three points."""
    size, grid = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size
    prompts = {"point_coords": torch.zeros(2, 3, 2), "point_labels": torch.zeros(2, 3)}
    embedding = {"embedding": torch.zeros(1, sam.mask_decoder.transformer_dim, *grid)}
    if name == "encode_image":
        return {"image": torch.zeros(1, 3, size, size)}
    if name == "decode":
        return embedding | prompts
    return embedding | prompts | {"mask_input": torch.zeros(2, 1, *sam.prompt_encoder.mask_input_size)}


def export_sam(sam: Sam) -> tuple[tvm.IRModule, dict[str, list[str]]]:
    """Import an upstream SAM into Relax.

    Parameters
    ----------
    sam : Sam
        In evaluation mode; weights are shared, not copied, and none end up in the IRModule.

    Returns
    -------
    module : tvm.IRModule
        ``encode_image``, ``decode`` and ``decode_mask``; see :func:`export_function`.
    function_params : dict of str to list of str
        State-dict names of the parameters of each function, in order.

    Raises
    ------
    UnsupportedModelError
        When ``torch.export`` or TVM cannot take the model.
    """
    module, function_params = tvm.IRModule(), {}
    for name in _WRAPPERS:
        module[name], function_params[name] = export_function(sam, name)
    return module, function_params


def export_function(sam: Sam, name: str) -> tuple[relax.Function, list[str]]:
    """Import one function; see :func:`tvm_ahcq.models.export.export_module`."""
    inputs = example_inputs(sam, name)
    symbolic = {key: axes for key, axes in _SYMBOLIC.items() if key in inputs}
    return export_module(wrapper(sam, name), name, inputs, symbolic)
