"""``sam2_n``: the small SAM 2.1 that ships with the package, built from the classes of the package ``sam2``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from tvm_ahcq.models.torchvision_compat import ensure_torchvision

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

IMAGE_SIZE = 256
"""Side of the model's square input in pixels."""

STABILITY = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
"""Upstream's post-processing of ``build_sam2``, which is on by default."""

_FLAGS = {
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "no_obj_embed_spatial": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "add_tpos_enc_to_obj_ptrs": True,
    "proj_tpos_enc_in_obj_ptrs": True,
    "use_signed_tpos_enc_to_obj_ptrs": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
}
"""Those of upstream's ``sam2.1_hiera_t.yaml``."""


def build_sam2_n(
    *,
    image_size: int = IMAGE_SIZE,
    embed_dim: int = 48,
    num_heads: int = 1,
    stages: tuple[int, ...] = (1, 2, 4, 1),
    window_spec: tuple[int, ...] = (8, 4, 8, 4),
    global_att_blocks: tuple[int, ...] = (4, 6),
    prompt_dim: int = 128,
    memory_dim: int = 32,
    memory_layers: int = 2,
) -> SAM2Base:
    """Build ``sam2_n`` with fresh weights; same classes, options and layout of the state dict as upstream's.

    Parameters
    ----------
    image_size, embed_dim, num_heads, stages, window_spec, global_att_blocks
        As in ``sam2.modeling.backbones.hieradet.Hiera``; the defaults are those of the embedded weights.
    prompt_dim
        Width of prompt encoder, mask decoder and image embedding.
    memory_dim, memory_layers
        Channels of a memory, and layers of the memory attention.

    Returns
    -------
    SAM2Base
        In evaluation mode, float32.
    """
    ensure_torchvision()
    from sam2.modeling.sam2_base import SAM2Base

    sam2 = SAM2Base(
        image_encoder=_image_encoder(embed_dim, num_heads, stages, window_spec, global_att_blocks, prompt_dim),
        memory_attention=_memory_attention(image_size // 16, prompt_dim, memory_dim, memory_layers),
        memory_encoder=_memory_encoder(prompt_dim, memory_dim),
        num_maskmem=7,
        image_size=image_size,
        sam_mask_decoder_extra_args=STABILITY,
        **_FLAGS,
    )
    sam2.sam_mask_decoder = _mask_decoder(prompt_dim)  # a quarter of the MLP width and half of the heads of upstream's
    trunk = sam2.image_encoder.trunk
    for module in trunk.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(trunk.pos_embed, std=0.02)
    nn.init.trunc_normal_(trunk.pos_embed_window, std=0.02)
    return sam2.eval()


def _sine(features: int) -> nn.Module:
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    return PositionEmbeddingSine(num_pos_feats=features, normalize=True, temperature=10000)


def _image_encoder(
    embed_dim: int,
    num_heads: int,
    stages: tuple[int, ...],
    window_spec: tuple[int, ...],
    global_att_blocks: tuple[int, ...],
    prompt_dim: int,
) -> nn.Module:
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder

    trunk = Hiera(
        embed_dim=embed_dim,
        num_heads=num_heads,
        stages=stages,
        window_spec=window_spec,
        global_att_blocks=global_att_blocks,
        window_pos_embed_bkg_spatial_size=(7, 7),
    )
    neck = FpnNeck(
        position_encoding=_sine(prompt_dim),
        d_model=prompt_dim,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)


def _memory_attention(side: int, prompt_dim: int, memory_dim: int, layers: int) -> nn.Module:
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.sam.transformer import RoPEAttention

    attention: Any = partial(
        RoPEAttention,
        rope_theta=10000.0,
        feat_sizes=(side, side),
        embedding_dim=prompt_dim,
        num_heads=1,
        downsample_rate=1,
        dropout=0.0,
    )
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=4 * prompt_dim,
        dropout=0.0,
        pos_enc_at_attn=False,
        self_attention=attention(),
        d_model=prompt_dim,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=attention(rope_k_repeat=True, kv_in_dim=memory_dim),
    )
    return MemoryAttention(d_model=prompt_dim, pos_enc_at_input=True, layer=layer, num_layers=layers)


def _memory_encoder(prompt_dim: int, memory_dim: int) -> nn.Module:
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder

    block = CXBlock(dim=prompt_dim, kernel_size=7, padding=3, layer_scale_init_value=0.1, use_dwconv=True)
    return MemoryEncoder(
        out_dim=memory_dim,
        in_dim=prompt_dim,
        position_encoding=_sine(memory_dim),
        mask_downsampler=MaskDownSampler(embed_dim=prompt_dim, kernel_size=3, stride=2, padding=1),
        fuser=Fuser(block, num_layers=2),
    )


def _mask_decoder(prompt_dim: int) -> nn.Module:
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    return MaskDecoder(
        num_multimask_outputs=3,
        transformer_dim=prompt_dim,
        transformer=TwoWayTransformer(depth=2, embedding_dim=prompt_dim, mlp_dim=512, num_heads=4),
        iou_head_depth=3,
        iou_head_hidden_dim=prompt_dim,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        **STABILITY,
    )
