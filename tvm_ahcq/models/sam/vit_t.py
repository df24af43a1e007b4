"""``vit_t``: the small SAM that ships with the package, built from the upstream ``segment_anything`` classes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from tvm_ahcq.models.torchvision_compat import ensure_torchvision

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

IMAGE_SIZE = 256
"""Side of the model's square input in pixels."""


def build_sam_vit_t(
    *,
    image_size: int = IMAGE_SIZE,
    patch_size: int = 16,
    embed_dim: int = 192,
    depth: int = 8,
    num_heads: int = 6,
    global_attn_indexes: tuple[int, ...] = (2, 5, 7),
    window_size: int = 8,
    prompt_dim: int = 128,
) -> Sam:
    """Build ``vit_t`` with fresh weights; same classes, options and state-dict layout as upstream's ``vit_b``.

    Parameters
    ----------
    image_size, patch_size, embed_dim, depth, num_heads, global_attn_indexes, window_size
        As in ``segment_anything.modeling.ImageEncoderViT``; the defaults are those of the embedded weights.
    prompt_dim
        Width of prompt encoder, mask decoder and image embedding.

    Returns
    -------
    Sam
        In evaluation mode, float32.
    """
    ensure_torchvision()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid = image_size // patch_size
    sam = Sam(
        image_encoder=ImageEncoderViT(
            depth=depth,
            embed_dim=embed_dim,
            img_size=image_size,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=num_heads,
            patch_size=patch_size,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=global_attn_indexes,
            window_size=window_size,
            out_chans=prompt_dim,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=prompt_dim, mlp_dim=512, num_heads=4),
            transformer_dim=prompt_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=prompt_dim,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return sam.eval()
