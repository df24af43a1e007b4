"""``from_sam``: a Segment Anything model, from the embedded or a given checkpoint, as Relax functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import tvm

from tvm_ahcq.errors import CheckpointError, UnsupportedModelError
from tvm_ahcq.models.torchvision_compat import ensure_torchvision
from tvm_ahcq.runtime.manifest import ModelSpec

from .export import export_sam

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

EMBEDDED_WEIGHTS = Path(__file__).parent / "weights" / "vit_t.safetensors"
"""Weights of ``vit_t``, trained on generated scenes; part of the package."""

_OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything/"
OFFICIAL_CHECKPOINTS = {
    "vit_b": _OFFICIAL + "sam_vit_b_01ec64.pth",
    "vit_l": _OFFICIAL + "sam_vit_l_0b3195.pth",
    "vit_h": _OFFICIAL + "sam_vit_h_4b8939.pth",
}
"""Where Meta publishes the weights of each upstream model type."""


@dataclass(frozen=True)
class SamModel(ModelSpec):
    """A float SAM as Relax functions with its weights beside them.

    Attributes
    ----------
    name, image_size, grid, prompt_dim, mask_threshold, pixel_mean, pixel_std
        As in :class:`.ModelSpec`.
    module : tvm.IRModule
        ``encode_image(image f32[1,3,S,S]) -> f32[1,C,h,w]``;
        ``decode(embedding, point_coords f32[B,N,2], point_labels f32[B,N]) -> (masks f32[B,4,4h,4w], iou f32[B,4])``
        with coordinates in model pixels (the graph adds the 0.5) and labels -1 padding, 0 background, 1 foreground, 2
        and 3 box corners; ``decode_mask(..., mask_input f32[B,1,4h,4w])`` likewise. B and N are symbolic.
    params : dict of str to np.ndarray
        float32, by name in the SAM state dict.
    function_params : dict of str to list of str
        Names of the parameters that each function takes after its inputs, in order.
    """

    module: tvm.IRModule
    params: dict[str, np.ndarray]
    function_params: dict[str, list[str]]

    @property
    def spec(self) -> ModelSpec:
        """The figures that pre- and post-processing need, without the model."""
        return ModelSpec(**{field.name: getattr(self, field.name) for field in fields(ModelSpec)})


def _builders() -> dict[str, Callable[[], Sam]]:
    """Upstream module builders by model type."""
    ensure_torchvision()
    from segment_anything import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l

    from .vit_t import build_sam_vit_t

    return {"vit_t": build_sam_vit_t, "vit_b": build_sam_vit_b, "vit_l": build_sam_vit_l, "vit_h": build_sam_vit_h}


def build_module(model_type: str, device: str = "meta") -> Sam:
    """The upstream torch module of a model type, without trained weights.

    Parameters
    ----------
    model_type : str
        ``"vit_t"``, ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``.
    device : str
        ``"meta"`` for shapes without memory, ``"cpu"`` for freshly initialised weights.

    Returns
    -------
    Sam
        In evaluation mode.

    Raises
    ------
    UnsupportedModelError
        For an unknown model type.
    """
    builders = _builders()
    if model_type not in builders:
        raise UnsupportedModelError(f"unknown model type {model_type!r}; expected one of {', '.join(builders)}")
    with torch.device(device):
        return builders[model_type]().eval()


def from_module(sam: Sam, name: str) -> SamModel:
    """Import an upstream torch module with its weights.

    Parameters
    ----------
    sam : Sam
        ``segment_anything`` module on the CPU, in evaluation mode, float32. Its weights are shared, not copied.
    name : str
        Model type to call it by.

    Returns
    -------
    SamModel

    Raises
    ------
    UnsupportedModelError
        When the input is not square or not a multiple of the patch size 16, or the module cannot be imported.
    """
    size, (height, width) = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size
    if height != width or height * 16 != size:
        raise UnsupportedModelError(
            f"{name}: input {size} with embedding {height}x{width}; expected a square input of 16 times the embedding"
        )
    module, function_params = export_sam(sam)
    used = {param for names in function_params.values() for param in names}
    params = {key: value.detach().numpy() for key, value in sam.state_dict().items() if key in used}
    mean, std = _figures(sam.pixel_mean), _figures(sam.pixel_std)
    return SamModel(
        name,
        size,
        height,
        sam.mask_decoder.transformer_dim,
        float(sam.mask_threshold),
        mean,
        std,
        module,
        params,
        function_params,
    )


def _figures(channels: torch.Tensor) -> tuple[float, float, float]:
    """The three figures that were meant: 123.675 is 123.67500305 in float32, whose shortest decimal form it is."""
    red, green, blue = (float(str(value)) for value in channels.numpy().ravel())
    return red, green, blue


def from_sam(model_type: str = "vit_t", checkpoint: str | os.PathLike | None = None) -> SamModel:
    """Load a Segment Anything model.

    Parameters
    ----------
    model_type : str
        ``"vit_t"`` (small, 256 x 256, weights in the package), ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``.
    checkpoint : path, optional
        Official ``.pth`` file, or a ``.safetensors`` file with the same names. May be left out for ``vit_t`` only.

    Returns
    -------
    SamModel
        Weights in float32, memory-mapped from the file where its format allows.

    Raises
    ------
    UnsupportedModelError
        For an unknown model type.
    CheckpointError
        When the checkpoint is missing, unreadable, or of another architecture.
    """
    from tvm_ahcq.models.checkpoint import load_checkpoint

    sam = build_module(model_type)
    if checkpoint is None:
        if model_type != "vit_t":
            raise CheckpointError(
                f"{model_type} needs a checkpoint; pass checkpoint=PATH, for instance of the file from "
                f"{OFFICIAL_CHECKPOINTS[model_type]} (only vit_t comes with weights)"
            )
        checkpoint = EMBEDDED_WEIGHTS
    sam.load_state_dict(load_checkpoint(checkpoint, model_type), assign=True)
    return from_module(sam, model_type)
