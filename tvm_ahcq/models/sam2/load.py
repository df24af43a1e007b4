"""``from_sam2``: a Segment Anything 2 model from a checkpoint, as Relax functions."""

from __future__ import annotations

import os
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.models.checkpoint import checkpoint_path, load_checkpoint
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import find_family
from tvm_ahcq.models.torchvision_compat import ensure_torchvision

from .export import changed_weights, export_sam2
from .sam2_n import STABILITY, build_sam2_n
from .spec import Sam2Spec

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of pixels on the 0..1 scale (upstream, ``SAM2Transforms``)."""


class _LinspaceOnCpu(TorchFunctionMode):
    """Leaves ``linspace`` off the device "meta": Hiera reads its values when it is built."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def build_module(model_type: str, device: str = "meta") -> SAM2Base:
    """Build the upstream torch module of a model type, without trained weights.

    Parameters
    ----------
    model_type : str
        ``"sam2.1_hiera_t"``, ``"sam2_hiera_b+"``, ...
    device : str
        ``"meta"`` for shapes without memory, ``"cpu"`` for freshly initialised weights.

    Returns
    -------
    SAM2Base
        In evaluation mode; built from the configuration file that the package ``sam2`` brings along.

    Raises
    ------
    UnsupportedModelError
        For an unknown model type.
    """
    find_family(Sam2Spec.family).variant(model_type)
    ensure_torchvision()
    import sam2
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    if model_type == "sam2_n":
        with torch.device(device), _LinspaceOnCpu():
            return build_sam2_n()
    version = model_type.partition("_")[0]
    path = files(sam2) / "configs" / version / f"{model_type}.yaml"
    config = OmegaConf.create(path.read_text()).model
    config.sam_mask_decoder_extra_args = STABILITY
    with torch.device(device), _LinspaceOnCpu():
        return instantiate(config, _recursive_=True).eval()


def from_module(sam2: SAM2Base, name: str, video: bool = False) -> FloatModel:
    """Import an upstream torch module with its weights.

    Parameters
    ----------
    sam2 : SAM2Base
        Module of the package ``sam2`` on the CPU, in evaluation mode, float32. Its weights are shared, not copied.
    name : str
        Model type to call it by.
    video : bool
        True for the memory besides, which tracking in videos needs.

    Returns
    -------
    FloatModel

    Raises
    ------
    UnsupportedModelError
        When the module cannot be imported.
    """
    decoder = sam2.sam_mask_decoder
    if not (sam2.use_high_res_features_in_sam and sam2.directly_add_no_mem_embed and decoder.pred_obj_scores):
        raise UnsupportedModelError(
            f"{name}: expected a SAM 2 with high-resolution features, object scores, and an embedding for pictures "
            "without memory; all published ones have these"
        )
    module, function_params = export_sam2(sam2, video)
    used = {param for names in function_params.values() for param in names}
    state = sam2.state_dict() | changed_weights(sam2)
    params = {key: value.detach().numpy() for key, value in state.items() if key in used}
    spec = Sam2Spec(
        name,
        image_size=sam2.image_size,
        grid=sam2.sam_image_embedding_size,
        prompt_dim=sam2.hidden_dim,
        mask_threshold=0.0,
        pixel_mean=MEAN,
        pixel_std=STD,
        stability_delta=decoder.dynamic_multimask_stability_delta,
        stability_threshold=decoder.dynamic_multimask_stability_thresh,
        video=video,
        **memory_figures(sam2),
    )
    return FloatModel(spec, module, params, function_params)


def memory_figures(sam2: SAM2Base) -> dict[str, Any]:
    """Return the figures of :class:`.Sam2Spec` that video needs, of an upstream torch module."""
    return {
        "memories": sam2.num_maskmem,
        "max_pointers": sam2.max_obj_ptrs_in_encoder,
        "memory_dim": sam2.mem_dim,
        "memory_scale": float(sam2.sigmoid_scale_for_mem_enc),
        "memory_bias": float(sam2.sigmoid_bias_for_mem_enc),
        "signed_distances": sam2.use_signed_tpos_enc_to_obj_ptrs,
        "past_pointers_only": sam2.only_obj_ptrs_in_the_past_for_eval,
        "max_conditioning": sam2.max_cond_frames_in_attn,
        "memory_stride": sam2.memory_temporal_stride_for_eval,
        "multimask_points": (sam2.multimask_min_pt_num, sam2.multimask_max_pt_num),
    }


def from_sam2(
    model_type: str = "sam2.1_hiera_t", checkpoint: str | os.PathLike[str] | None = None, video: bool = False
) -> FloatModel:
    """Load a Segment Anything 2 model.

    Parameters
    ----------
    model_type : str
        ``"sam2.1_hiera_t"``, ``"sam2.1_hiera_s"``, ``"sam2.1_hiera_b+"``, ``"sam2.1_hiera_l"``, or one of SAM 2.0,
        such as ``"sam2_hiera_t"``; or ``"sam2_n"`` (small, 256 x 256, weights in the package).
    checkpoint : path, optional
        Official ``.pt`` file, or a ``.safetensors`` file with the same names. May be left out for ``sam2_n`` only.
    video : bool
        True for the memory besides, which tracking in videos needs.

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
    checkpoint = checkpoint_path(find_family(Sam2Spec.family), model_type, checkpoint)
    sam2 = build_module(model_type)
    sam2.load_state_dict(read_state(checkpoint, model_type), assign=True)
    return from_module(sam2, model_type, video)


def read_state(checkpoint: str | os.PathLike[str], model_type: str) -> dict[str, torch.Tensor]:
    """Return the state dict in a checkpoint file of a model type; CheckpointError if it does not fit."""
    return load_checkpoint(checkpoint, find_family(Sam2Spec.family), model_type, build_module)
