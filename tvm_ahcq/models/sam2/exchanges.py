"""Places of a SAM 2 where channels can be rescaled without changing its function."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ahcq.models.sam.exchanges import fused_attention, modules_like, separate_attention
from tvm_ahcq.quantizers.weight.equalise import Exchange


def exchanges(params: Mapping[str, np.ndarray]) -> list[Exchange]:
    """Return every place of a SAM 2 where channels can be rescaled, by the names of its parameters.

    Maxima over queries commute with positive factors; the shortcut of a widening block reads its first norm too.
    """
    found = []
    for block in modules_like(params, r"image_encoder\.trunk\.blocks\.\d+"):
        for norm, readers in (("norm1", ("attn.qkv", "proj")), ("norm2", ("mlp.layers.0",))):
            rows = (f"{block}.{norm}.weight", 0), (f"{block}.{norm}.bias", 0)
            columns = tuple(f"{block}.{reader}.weight" for reader in readers if f"{block}.{reader}.weight" in params)
            found.append(Exchange(f"{block}.{norm}", rows, columns, len(params[rows[0][0]])))
        found += fused_attention(params, f"{block}.attn")
    for layer in modules_like(params, r"sam_mask_decoder\.transformer\.layers\.\d+"):
        rows = (f"{layer}.mlp.layers.0.weight", 0), (f"{layer}.mlp.layers.0.bias", 0)
        channels = len(params[rows[0][0]])
        found.append(Exchange(f"{layer}.mlp.layers.0", rows, (f"{layer}.mlp.layers.1.weight",), channels))
    pattern = r"sam_mask_decoder\.transformer\.(?:layers\.\d+\.)?(?:self|cross|final)_attn\w*"
    for attention in modules_like(params, pattern):
        found += separate_attention(params, attention)
    return found
