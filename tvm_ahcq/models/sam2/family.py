"""The description of SAM 2 (arXiv 2408.00714): functions, layer roles, units, and how its parts are driven."""

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
from .spec import Sam2Spec
from .timing import TIMING
from .variants import VARIANTS

_BLOCK, _DECODER = r"image_encoder\.trunk\.blocks\.\d+", r"sam_mask_decoder\.transformer"
_MEMORY_LAYER = r"memory_attention\.layers\.\d+"
_DECODER_ATTENTION = (
    rf"{_DECODER}\.(layers\.\d+\.(self_attn|cross_attn_token_to_image|cross_attn_image_to_token)"
    r"|final_attn_token_to_image)"
)

_FEATURES = (
    TensorDescription("embedding", (1, "C", "h", "w"), "image embedding of a picture or a frame without memory"),
    TensorDescription("high_res_0", (1, "C/8", "4h", "4w"), "features of the first stage"),
    TensorDescription("high_res_1", (1, "C/4", "2h", "2w"), "features of the second stage"),
)
_FRAME = TensorDescription("frame", (1, "C", "h", "w"), "image embedding that memory is added to")
_PROMPTS = (
    TensorDescription("point_coords", ("B", "N", 2), "x and y in model pixels; the graph adds the 0.5"),
    TensorDescription("point_labels", ("B", "N"), "-1 padding, 0 background, 1 foreground, 2 and 3 box corners"),
)
_SCORE = TensorDescription("score", ("B", 1), "object score, a logit")
_MASKS = (
    TensorDescription("masks", ("B", 4, "4h", "4w"), "mask logits"),
    TensorDescription("iou", ("B", 4), "predicted IoU"),
    TensorDescription("pointers", ("B", 4, "C"), "object pointers, by mask"),
    _SCORE,
)
_MEMORY = (
    FunctionDescription(
        "attend_frame",
        "attend_frame",
        (_FRAME,),
        (TensorDescription("tokens", (1, "hw", "C"), "cells of the frame after the first self-attention"),),
    ),
    FunctionDescription(
        "attend_memory",
        "attend_memory",
        (
            TensorDescription("tokens", (1, "hw", "C"), "cells of the frame after the first self-attention"),
            TensorDescription("memories", ("M", "hw", "c"), "memories of one object"),
            TensorDescription("slots", ("M",), "0 conditioning frame, 1 oldest of the others, up to the latest"),
            TensorDescription("pointers", ("P", "C"), "object pointers"),
            TensorDescription("distances", ("P",), "frames to each pointer, over the greatest number that counts"),
        ),
        _FEATURES[:1],
    ),
    FunctionDescription(
        "encode_memory",
        "encode_memory",
        (_FRAME, TensorDescription("masks", ("B", 1, "S", "S"), "scaled probabilities of the masks"), _SCORE),
        (TensorDescription("memories", ("B", "hw", "c"), "memories"),),
    ),
    FunctionDescription(
        "embed_mask",
        "embed_mask",
        (TensorDescription("mask", ("B", 1, "S", "S"), "0 and 1"),),
        (
            TensorDescription("mask_input", ("B", 1, "4h", "4w"), "the mask as a prompt"),
            TensorDescription("absent_pointer", (1, "C"), "pointer of an object that is not there"),
        ),
    ),
)


def _load(name: str, checkpoint: str | os.PathLike[str] | None = None) -> FloatModel:
    from .load import from_sam2

    return from_sam2(name, checkpoint)


def _load_video(name: str, checkpoint: str | os.PathLike[str] | None = None) -> FloatModel:
    from .load import from_sam2

    return from_sam2(name, checkpoint, video=True)


def _predictor(session: SessionLike) -> Any:
    from .predictor import Sam2ImagePredictor

    return Sam2ImagePredictor(session)


def _video_predictor(session: SessionLike, **options: Any) -> Any:
    from .video_predictor import SAM2VideoPredictor

    return SAM2VideoPredictor(session, **options)


def _input_range(spec: Sam2Spec) -> PixelRange:
    mean, std = ([255 * level for level in levels] for levels in (spec.pixel_mean, spec.pixel_std))
    return pixel_range(mean, std)


SAM2 = register_family(
    ModelFamily(
        name="sam2",
        title="SAM 2",
        variants=VARIANTS,
        spec=Sam2Spec,
        functions=(
            FunctionDescription(
                "encode_image",
                ENCODE,
                (TensorDescription("image", (1, 3, "S", "S"), "squashed and normalised image"),),
                (*_FEATURES, _FRAME),
            ),
            FunctionDescription("decode", DECODE, (*_FEATURES, *_PROMPTS), _MASKS),
            FunctionDescription(
                "decode_mask",
                REFINE,
                (*_FEATURES, *_PROMPTS, TensorDescription("mask_input", ("B", 1, "4h", "4w"), "mask logits")),
                _MASKS,
            ),
            *_MEMORY,
        ),
        dims=(
            SymbolicDim("B", "prompts", typical=1, batch=True),
            # of a prompt: a click and the padding behind it
            SymbolicDim("N", "points", typical=2),
            SymbolicDim("M", "memories", typical=7),
            SymbolicDim("P", "object pointers", typical=16),
        ),
        roles=(
            LayerRole(r"patch_embed", PIXELS),
            LayerRole(rf"{_BLOCK}\.(attn\.qkv|mlp\.layers\.0|proj)", "norm"),
            LayerRole(rf"{_BLOCK}\.attn\.proj", "projection"),
            LayerRole(rf"{_BLOCK}\.attn", ATTENTION),
            LayerRole(rf"({_BLOCK}|{_DECODER}\.layers\.\d+)\.mlp\.layers\.1", "activation"),
            # laterals read the residual stream, whose channels differ as much as those behind a norm
            LayerRole(r"image_encoder\.neck\.convs\.\d+\.conv", "norm"),
            LayerRole(r"high_res_[01]", "norm"),
            LayerRole(rf"{_DECODER}\.layers\.\d+\.mlp\.layers\.0", "norm"),
            LayerRole(rf"{_DECODER_ATTENTION}\.[qkv]_proj", "norm"),
            LayerRole(rf"{_DECODER_ATTENTION}\.out_proj", "projection"),
            LayerRole(_DECODER_ATTENTION, ATTENTION),
            LayerRole(
                r"sam_mask_decoder\.(output_upscaling|output_hypernetworks_mlps|iou_prediction_head"
                r"|pred_obj_score_head)\..*",
                FLOAT,
                "heads of the mask decoder, in float in the published method",
            ),
            LayerRole(rf"{_MEMORY_LAYER}\.(self_attn\.[qkv]_proj|cross_attn_image\.[qk]_proj|linear1)", "norm"),
            LayerRole(rf"{_MEMORY_LAYER}\.(self_attn|cross_attn_image)\.out_proj", "projection"),
            LayerRole(rf"{_MEMORY_LAYER}\.linear2|memory_block_\d+", "activation"),
            LayerRole(rf"{_MEMORY_LAYER}\.(self_attn|cross_attn_image)", ATTENTION),
            LayerRole(r"memory_encoder\.fuser\.layers\.\d+\.pwconv1", "norm"),
            LayerRole(r"memory_encoder\.(pix_feat_proj|out_proj)", "linear"),
            LayerRole(r"memory_encoder\.mask_downsampler\..*", FLOAT, "reads the mask: few channels, and every edge"),
            LayerRole(r"memory_encoder\.fuser\.layers\.\d+\.dwconv", FLOAT, "depthwise: 49 products an output"),
            LayerRole(r"obj_ptr_(tpos_)?proj.*", FLOAT, "object pointers: small, and read by every later frame"),
            LayerRole(r"mask_downsample", FLOAT, "a mask prompt, in float in the published method"),
            LayerRole(r"sam_prompt_encoder\..*", FLOAT, "encoding of prompts, in float in the published method"),
            LayerRole(r"decode(_mask)?\.matmul", FLOAT, "masks from hypernetworks: both operands are computed"),
            LayerRole(r"encode_image\.max_pool2d", FLOAT, "a maximum over four tokens"),
            LayerRole(r"image_encoder\.trunk", FLOAT, "enlarges the position embedding"),
        ),
        units=rf"{_BLOCK}|image_encoder\.neck|{_DECODER}\.layers\.\d+|{_DECODER}\.final_attn_token_to_image"
        rf"|{_MEMORY_LAYER}\.(?:self_attn|cross_attn_image|linear)|memory_encoder",
        prepare=prepare,
        drive=drive,
        load=_load,
        load_video=_load_video,
        predictor=_predictor,
        video_predictor=_video_predictor,
        marker=r"image_encoder\.trunk\.patch_embed\.proj\.weight",
        exchanges=exchanges,
        golden=GoldenCheck(make_golden, compare),
        input_range=_input_range,
        searched_keys=r"sam_mask_decoder\..*\.k",
        foldable_signs=r".*token_to_image.*",
        links=links,
        prompting=PROMPTING,
        timing=TIMING,
    )
)
