"""The description of SAM (arXiv 2304.02643): functions, layer roles, units, and how its parts are driven."""

from __future__ import annotations

import os
from typing import Any

from tvm_ahcq.models.description import (
    ATTENTION,
    DECODE,
    ENCODE,
    FLOAT,
    PIXELS,
    REFINE,
    FunctionDescription,
    LayerRole,
    ModelFamily,
    SymbolicDim,
    TensorDescription,
)
from tvm_ahcq.models.execution import GoldenCheck, SessionLike
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import register_family
from tvm_ahcq.quantizers.activation.pixels import PixelRange, pixel_range

from .driver import drive
from .exchanges import exchanges
from .golden import compare, make_golden
from .image import prepare
from .links import links
from .prompting import PROMPTING
from .spec import SamSpec
from .timing import TIMING
from .variants import VARIANTS

_ENCODER, _DECODER = r"image_encoder\.blocks\.\d+", r"mask_decoder\.transformer"
_DECODER_ATTENTION = (
    rf"{_DECODER}\.(layers\.\d+\.(self_attn|cross_attn_token_to_image|cross_attn_image_to_token)"
    r"|final_attn_token_to_image)"
)

_EMBEDDING = TensorDescription("embedding", (1, "C", "h", "w"), "image embedding")
_PROMPTS = (
    TensorDescription("point_coords", ("B", "N", 2), "x and y in model pixels; the graph adds the 0.5"),
    TensorDescription("point_labels", ("B", "N"), "-1 padding, 0 background, 1 foreground, 2 and 3 box corners"),
)
_MASKS = (
    TensorDescription("masks", ("B", 4, "4h", "4w"), "mask logits"),
    TensorDescription("iou", ("B", 4), "predicted IoU"),
)


def _load(name: str, checkpoint: str | os.PathLike[str] | None = None) -> FloatModel:
    from .load import from_sam

    return from_sam(name, checkpoint)


def _predictor(session: SessionLike) -> Any:
    from .predictor import SamPredictor

    return SamPredictor(session)


def _input_range(spec: SamSpec) -> PixelRange:
    return pixel_range(spec.pixel_mean, spec.pixel_std)


SAM = register_family(
    ModelFamily(
        name="sam",
        title="SAM",
        variants=VARIANTS,
        spec=SamSpec,
        functions=(
            FunctionDescription(
                "encode_image",
                ENCODE,
                (TensorDescription("image", (1, 3, "S", "S"), "normalised and padded image"),),
                (_EMBEDDING,),
            ),
            FunctionDescription("decode", DECODE, (_EMBEDDING, *_PROMPTS), _MASKS),
            FunctionDescription(
                "decode_mask",
                REFINE,
                (_EMBEDDING, *_PROMPTS, TensorDescription("mask_input", ("B", 1, "4h", "4w"), "mask logits")),
                _MASKS,
            ),
        ),
        dims=(
            SymbolicDim("B", "prompts", typical=1, batch=True),
            # of a prompt: a click and the padding behind it, or the corners of a box
            SymbolicDim("N", "points", typical=2),
        ),
        roles=(
            LayerRole(r"image_encoder\.patch_embed\.proj", PIXELS),
            LayerRole(rf"{_ENCODER}\.(attn\.qkv|mlp\.lin1)", "norm"),
            LayerRole(rf"{_ENCODER}\.attn\.proj", "projection"),
            LayerRole(rf"{_ENCODER}\.attn", ATTENTION),
            LayerRole(rf"({_ENCODER}|{_DECODER}\.layers\.\d+)\.mlp\.lin2", "activation"),
            LayerRole(r"image_encoder\.neck\.[02]", "linear"),
            LayerRole(rf"{_DECODER}\.layers\.\d+\.mlp\.lin1", "norm"),
            LayerRole(rf"{_DECODER_ATTENTION}\.[qkv]_proj", "norm"),
            LayerRole(rf"{_DECODER_ATTENTION}\.out_proj", "projection"),
            LayerRole(_DECODER_ATTENTION, ATTENTION),
            LayerRole(
                r"mask_decoder\.(output_upscaling|output_hypernetworks_mlps|iou_prediction_head)\..*",
                FLOAT,
                "heads of the mask decoder, in float in the published method",
            ),
            LayerRole(r"prompt_encoder\..*", FLOAT, "encoding of prompts, in float in the published method"),
            LayerRole(r"decode(_mask)?\.matmul", FLOAT, "masks from hypernetworks: both operands are computed"),
        ),
        units=rf"{_ENCODER}|image_encoder\.neck|{_DECODER}\.layers\.\d+|{_DECODER}\.final_attn_token_to_image",
        prepare=prepare,
        drive=drive,
        load=_load,
        predictor=_predictor,
        marker=r"image_encoder\.patch_embed\.proj\.weight",
        exchanges=exchanges,
        golden=GoldenCheck(make_golden, compare),
        input_range=_input_range,
        searched_keys=r"mask_decoder\..*\.k",
        foldable_signs=r".*token_to_image.*",
        links=links,
        prompting=PROMPTING,
        timing=TIMING,
    )
)
