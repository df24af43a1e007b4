"""``from_sam``: a Segment Anything model, from the embedded or a given checkpoint, as Relax functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.models.checkpoint import checkpoint_path, load_checkpoint
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import find_family
from tvm_ahcq.models.torchvision_compat import ensure_torchvision

from .export import export_sam
from .spec import SamSpec

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


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


def from_module(sam: Sam, name: str) -> FloatModel:
    """Import an upstream torch module with its weights.

    Parameters
    ----------
    sam : Sam
        ``segment_anything`` module on the CPU, in evaluation mode, float32. Its weights are shared, not copied.
    name : str
        Model type to call it by.

    Returns
    -------
    FloatModel

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
    spec = SamSpec(name, size, height, sam.mask_decoder.transformer_dim, float(sam.mask_threshold), mean, std)
    return FloatModel(spec, module, params, function_params)


def _figures(channels: torch.Tensor) -> tuple[float, float, float]:
    """The three figures that were meant: 123.675 is 123.67500305 in float32, whose shortest decimal form it is."""
    red, green, blue = (float(str(value)) for value in channels.numpy().ravel())
    return red, green, blue


def from_sam(model_type: str = "vit_t", checkpoint: str | os.PathLike | None = None) -> FloatModel:
    """Load a Segment Anything model.

    Parameters
    ----------
    model_type : str
        ``"vit_t"`` (small, 256 x 256, weights in the package), ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``.
    checkpoint : path, optional
        Official ``.pth`` file, or a ``.safetensors`` file with the same names. May be left out for ``vit_t`` only.

    Returns
    -------
    FloatModel
        Weights in float32, memory-mapped from the file where its format allows.

    Raises
    ------
    UnsupportedModelError
        For an unknown model type.
    CheckpointError
        When the checkpoint is missing, unreadable, or of another architecture.
    """
    checkpoint = checkpoint_path(find_family(SamSpec.family), model_type, checkpoint)
    sam = build_module(model_type)
    sam.load_state_dict(read_state(checkpoint, model_type), assign=True)
    return from_module(sam, model_type)


def read_state(checkpoint: str | os.PathLike, model_type: str) -> dict[str, torch.Tensor]:
    """Return the state dict in a checkpoint file of a model type; CheckpointError if it does not fit."""
    return load_checkpoint(checkpoint, find_family(SamSpec.family), model_type, build_module)
