"""SAM 2 as Relax functions in one IRModule: ``encode_image``, ``decode``, ``decode_mask``, and those of the memory.

The wrappers call the upstream submodules. Written anew are what does not export (labels as boolean indices, copies of
the image for each prompt, the choice of masks by their stability, which the runtime makes), the position embedding
(bicubic interpolation is a product with constants, so that a bundle holds the small table and not its enlargement), the
patch embedding, whose patches overlap, and the high-resolution features, where two linear layers follow one another.
The memory is in :mod:`.export_memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
import tvm
from torch import nn
from tvm import relax

from tvm_ahcq.models.export import export_module
from tvm_ahcq.models.sam.export import embed_points

from .export_memory import AttendFrame, AttendMemory, EmbedMask, EncodeMemory, MemoryAttention, scaled_layers
from .functions import MEMORY_FUNCTIONS, PICTURE_FUNCTIONS

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


class _EncodeImage(nn.Module):
    """Normalised image (1, 3, S, S) to its features.

    Returns the embedding for pictures and conditioning frames (1, C, h, w), high-resolution features (1, C/8, 4h, 4w)
    and (1, C/4, 2h, 2w), and the embedding without the mark "no memory", which the memory modules read.
    """

    enlarge: torch.Tensor
    patch_embed: nn.Module
    high_res_0: nn.Module
    high_res_1: nn.Module

    def __init__(self, sam2: SAM2Base, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.image_encoder = sam2.image_encoder
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.no_mem_embed = sam2.no_mem_embed
        trunk = self.image_encoder.trunk
        rows, side = trunk.pos_embed.shape[-1], sam2.image_size // trunk.patch_embed.proj.stride[0]
        identity = torch.eye(rows, device="cpu").reshape(1, rows, rows, 1)
        weights = F.interpolate(identity, size=(side, 1), mode="bicubic").reshape(rows, side)
        self.register_buffer("enlarge", weights, persistent=False)

    def position_embedding(self) -> torch.Tensor:
        """(1, H, W, C), as upstream's ``Hiera._get_pos_embed``."""
        trunk = self.image_encoder.trunk
        background = self.enlarge.transpose(0, 1) @ trunk.pos_embed @ self.enlarge
        window = trunk.pos_embed_window
        count = background.shape[-1] // window.shape[-1]
        return (background + window.repeat(1, 1, count, count)).permute(0, 2, 3, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        trunk, neck = self.image_encoder.trunk, self.image_encoder.neck
        x = self.patch_embed(image).permute(0, 2, 3, 1) + self.position_embedding()
        stages = []
        for i, block in enumerate(trunk.blocks):
            x = block(x)
            if i in trunk.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        top = neck.convs[0](stages[3])
        features = neck.convs[1](stages[2]) + _twice(top)
        high_0, high_1 = self.high_res_0(stages[0]), self.high_res_1(stages[1])
        return features + self.no_mem_embed.reshape(1, -1, 1, 1), high_0, high_1, features


def upstream_layers(sam2: SAM2Base) -> dict[str, nn.Module]:
    """Return the layers of ``encode_image`` that :func:`derived_layers` replaces, by name."""
    convs, decoder = sam2.image_encoder.neck.convs, sam2.sam_mask_decoder
    return {
        "patch_embed": sam2.image_encoder.trunk.patch_embed.proj,
        "high_res_0": nn.Sequential(convs[3], decoder.conv_s0),
        "high_res_1": nn.Sequential(convs[2], decoder.conv_s1),
    }


def derived_layers(sam2: SAM2Base) -> dict[str, nn.Conv2d]:
    """Return the layers of ``encode_image`` whose weights are computed from upstream's, by name.

    The kernel of the patch embedding is filled up with zeros to a multiple of its stride. The lateral layer of a stage
    and the decoder's layer behind it are linear and 1 x 1: one layer with the product of their weights computes the
    same with an eighth of the products, and its input alone is quantized.
    """
    convs, decoder = sam2.image_encoder.neck.convs, sam2.sam_mask_decoder
    return {
        "patch_embed": _SideBySide(sam2.image_encoder.trunk.patch_embed.proj),
        "high_res_0": _in_sequence(convs[3].conv, decoder.conv_s0),
        "high_res_1": _in_sequence(convs[2].conv, decoder.conv_s1),
    }


class _SideBySide(nn.Conv2d):
    """A patch embedding whose patches overlap, as one of patches side by side."""

    def __init__(self, overlapping: nn.Conv2d) -> None:
        kernel, stride = overlapping.kernel_size[0], overlapping.stride[0]
        size = -(-kernel // stride) * stride
        super().__init__(overlapping.in_channels, overlapping.out_channels, size, stride=size, device="meta")
        weight = F.pad(overlapping.weight.detach(), [0, size - kernel, 0, size - kernel])
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), overlapping.bias
        self.step, self.margin = stride, int(overlapping.padding[0])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(self.patches(image))

    def patches(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, S, S) -> (1, 3, grid * k, grid * k): the pixels that each output reads."""
        side, kernel, step = image.shape[-1], self.kernel_size[0], self.step
        count = side // step
        after = (count - 1) * step + kernel - side - self.margin
        x = F.pad(image, [self.margin, after, self.margin, after])
        for axis in (2, 4):
            x = x.unflatten(axis, (-1, step))
            parts = [(*[slice(None)] * axis, slice(first, first + count)) for first in range(kernel // step)]
            x = torch.cat([x[part] for part in parts], axis + 1)
        return x.reshape(*image.shape[:2], count * kernel, count * kernel)


def _in_sequence(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Return the 1 x 1 convolution that computes two 1 x 1 convolutions in sequence."""
    left, right = second.weight[:, :, 0, 0].double(), first.weight[:, :, 0, 0].double()
    merged = nn.Conv2d(right.shape[1], left.shape[0], 1, device="meta")
    biases = [cast("torch.Tensor", convolution.bias).double() for convolution in (first, second)]
    merged.weight = nn.Parameter((left @ right)[:, :, None, None].float().detach(), requires_grad=False)
    merged.bias = nn.Parameter((left @ biases[0] + biases[1]).float().detach(), requires_grad=False)
    return merged


def _twice(x: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, C, 2h, 2w): each pixel four times."""
    batch, channels, height, width = x.shape
    repeated = x[:, :, :, None, :, None].expand(batch, channels, height, 2, width, 2)
    return repeated.reshape(batch, channels, 2 * height, 2 * width)


class _Decoder(nn.Module):
    """Prompts -> four masks, their predicted IoU, object pointers and object scores."""

    def __init__(self, sam2: SAM2Base) -> None:
        super().__init__()
        self.sam_prompt_encoder, self.sam_mask_decoder = sam2.sam_prompt_encoder, sam2.sam_mask_decoder
        self.obj_ptr_proj, self.no_obj_ptr = sam2.obj_ptr_proj, sam2.no_obj_ptr
        self.register_buffer("dense_pe", sam2.sam_prompt_encoder.get_dense_pe().detach(), persistent=False)

    def predict(
        self, source: torch.Tensor, prompts: torch.Tensor, high_0: torch.Tensor, high_1: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(1 or B, C, h, w) embedding plus mask embedding and (B, N, C) prompts -> masks (B, 4, 4h, 4w), predicted IoU
        (B, 4), pointers (B, 4, C) and object scores (B, 1)."""
        decoder = self.sam_mask_decoder
        own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.unsqueeze(0).expand(prompts.shape[0], -1, -1), prompts], dim=1)
        tokens, source_tokens = decoder.transformer(source, self.dense_pe, tokens)

        channels, height, width = source.shape[1:]
        image = source_tokens.transpose(1, 2).reshape(-1, channels, height, width)
        enlarge_1, norm, activation_1, enlarge_2, activation_2 = decoder.output_upscaling
        upscaled = activation_1(norm(enlarge_1(image) + high_1))
        upscaled = activation_2(enlarge_2(upscaled) + high_0)
        masks = tokens[:, 2 : 2 + decoder.num_mask_tokens]
        kernels = [mlp(masks[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        logits = torch.stack(kernels, dim=1) @ upscaled.flatten(2)
        score = decoder.pred_obj_score_head(tokens[:, 0])
        return (
            logits.reshape(-1, decoder.num_mask_tokens, *upscaled.shape[2:]),
            decoder.iou_prediction_head(tokens[:, 1]),
            torch.where(score[..., None] > 0, self.obj_ptr_proj(masks), self.no_obj_ptr),
            score,
        )


class _Decode(_Decoder):
    """Prompts without a mask."""

    def forward(
        self,
        embedding: torch.Tensor,
        high_res_0: torch.Tensor,
        high_res_1: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        dense = self.sam_prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        prompts = embed_points(self.sam_prompt_encoder, point_coords, point_labels)
        return self.predict(embedding + dense, prompts, high_res_0, high_res_1)


class _DecodeMask(_Decoder):
    """Prompts with a mask from an earlier call (low-resolution logits)."""

    def forward(
        self,
        embedding: torch.Tensor,
        high_res_0: torch.Tensor,
        high_res_1: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        dense = self.sam_prompt_encoder.mask_downscaling(mask_input)
        prompts = embed_points(self.sam_prompt_encoder, point_coords, point_labels)
        return self.predict(embedding + dense, prompts, high_res_0, high_res_1)


_SYMBOLIC = {
    "point_coords": {0: "B", 1: "N"},
    "point_labels": {0: "B", 1: "N"},
    "mask_input": {0: "B"},
    "memories": {0: "M"},
    "slots": {0: "M"},
    "pointers": {0: "P"},
    "distances": {0: "P"},
    "masks": {0: "B"},
    "score": {0: "B"},
    "mask": {0: "B"},
}


def wrapper(sam2: SAM2Base, name: str, upstream: bool = False) -> nn.Module:
    """Return the torch form of a function, in evaluation mode; any exporter can take it.

    With `upstream`, the encoder has :func:`upstream_layers`, as other runtimes get it.
    """
    return _wrappers(sam2, upstream)[name]().eval()


def _wrappers(sam2: SAM2Base, upstream: bool) -> dict[str, Callable[[], nn.Module]]:
    """Return what builds the torch form of each function."""
    layers = upstream_layers if upstream else derived_layers
    return {
        "encode_image": lambda: _EncodeImage(sam2, layers(sam2)),
        "decode": lambda: _Decode(sam2),
        "decode_mask": lambda: _DecodeMask(sam2),
        "attend_frame": lambda: AttendFrame(sam2, MemoryAttention(sam2)),
        "attend_memory": lambda: AttendMemory(sam2, MemoryAttention(sam2)),
        "encode_memory": lambda: EncodeMemory(sam2, scaled_layers(sam2.memory_encoder)),
        "embed_mask": lambda: EmbedMask(sam2),
    }


def changed_weights(sam2: SAM2Base) -> dict[str, torch.Tensor]:
    """Return the parameters of the functions that upstream's state dict lacks or has with other values, by name."""
    layers: dict[str, nn.Module] = {**derived_layers(sam2), **scaled_layers(sam2.memory_encoder)}
    layers["memory_attention"] = MemoryAttention(sam2)
    return {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}


def example_inputs(sam2: SAM2Base, name: str) -> dict[str, torch.Tensor]:
    """Return zeros of the shapes that a function takes: two prompts of three points, three memories, five pointers."""
    size, grid, channels = sam2.image_size, sam2.sam_image_embedding_size, sam2.hidden_dim
    frame, mask = torch.zeros(1, channels, grid, grid), torch.zeros(2, 1, size, size)
    if name == "encode_image":
        return {"image": torch.zeros(1, 3, size, size)}
    if name == "attend_frame":
        return {"frame": frame}
    if name == "attend_memory":
        return {
            "tokens": torch.zeros(1, grid * grid, channels),
            "memories": torch.zeros(3, grid * grid, sam2.mem_dim),
            "slots": torch.zeros(3, dtype=torch.int64),
            "pointers": torch.zeros(5, channels),
            "distances": torch.zeros(5),
        }
    if name == "encode_memory":
        return {"frame": frame, "masks": mask, "score": torch.zeros(2, 1)}
    if name == "embed_mask":
        return {"mask": mask}
    inputs = {
        "embedding": frame,
        "high_res_0": torch.zeros(1, channels // 8, 4 * grid, 4 * grid),
        "high_res_1": torch.zeros(1, channels // 4, 2 * grid, 2 * grid),
        "point_coords": torch.zeros(2, 3, 2),
        "point_labels": torch.zeros(2, 3),
    }
    return inputs if name == "decode" else inputs | {"mask_input": torch.zeros(2, 1, 4 * grid, 4 * grid)}


def export_sam2(sam2: SAM2Base, video: bool) -> tuple[tvm.IRModule, dict[str, list[str]]]:
    """Import an upstream SAM 2 into Relax.

    Parameters
    ----------
    sam2 : SAM2Base
        In evaluation mode; weights are shared, not copied, and none end up in the IRModule.
    video : bool
        True for ``MEMORY_FUNCTIONS`` besides ``PICTURE_FUNCTIONS``.

    Returns
    -------
    module : tvm.IRModule
        The functions.
    function_params : dict of str to list of str
        State-dict names of the parameters of each function, in order.

    Raises
    ------
    UnsupportedModelError
        When ``torch.export`` or TVM cannot take the model.
    """
    module, function_params = tvm.IRModule(), {}
    for name in (*PICTURE_FUNCTIONS, *(MEMORY_FUNCTIONS if video else ())):
        module[name], function_params[name] = export_function(sam2, name)
    return module, function_params


def export_function(sam2: SAM2Base, name: str) -> tuple[relax.Function, list[str]]:
    """Import one function; see :func:`tvm_ahcq.models.export.export_module`."""
    inputs = example_inputs(sam2, name)
    symbolic = {key: axes for key, axes in _SYMBOLIC.items() if key in inputs}
    return export_module(wrapper(sam2, name), name, inputs, symbolic)
