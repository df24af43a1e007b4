"""Places of a SAM 2 where channels can be rescaled without changing its function."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ahcq.models.sam.exchanges import fused_attention, modules_like, separate_attention, values
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
    return found + _memory(params)


def _memory(params: Mapping[str, np.ndarray]) -> list[Exchange]:
    """Exchanges of the memory attention and of the memory encoder."""
    found = []
    for layer in modules_like(params, r"memory_attention\.layers\.\d+"):
        own = f"{layer}.self_attn"
        for norm, readers in (
            ("norm1", [f"{own}.{role}_proj" for role in "qkv"]),
            ("norm2", [f"{layer}.cross_attn_image.q_proj"]),
            ("norm3", [f"{layer}.linear1"]),
        ):
            if f"{readers[0]}.weight" in params:
                found.append(_produced_by(params, f"{layer}.{norm}", readers))
        found.append(_produced_by(params, f"{layer}.linear1", [f"{layer}.linear2"]))
        for attention in (own, f"{layer}.cross_attn_image"):
            q, k = (tuple((f"{attention}.{role}_proj.{kind}", 0) for kind in ("weight", "bias")) for role in "qk")
            channels = len(params[q[0][0]])
            found.append(
                Exchange(f"{attention}.qk", q, (), channels, k, heads=2, rotary=True, measured_at_producer=True)
            )
        found.append(values(params, own))
    for block in modules_like(params, r"memory_encoder\.fuser\.layers\.\d+"):
        found.append(_produced_by(params, f"{block}.norm", [f"{block}.pwconv1"]))
    return found


def _produced_by(params: Mapping[str, np.ndarray], producer: str, readers: list[str]) -> Exchange:
    """Channels that a norm or a linear layer produces and linear layers read."""
    rows = (f"{producer}.weight", 0), (f"{producer}.bias", 0)
    return Exchange(producer, rows, tuple(f"{reader}.weight" for reader in readers), len(params[rows[0][0]]))
