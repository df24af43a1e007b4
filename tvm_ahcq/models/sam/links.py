"""Links between the layers of a SAM along which parameters can change without changing its function."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ahcq.models.links import AttentionLink, Links, NormLink, ReluLink, Rows

from .spec import SamSpec


def links(spec: SamSpec, params: Mapping[str, np.ndarray], head_dims: Mapping[str, int]) -> Links:
    """Return the links of a SAM.

    Parameters
    ----------
    spec : SamSpec
        Figures of the model.
    params : mapping of str to numpy.ndarray
        By name in the state dict.
    head_dims : mapping of str to int
        Channels of a head of every attention, by its name.
    """
    hidden = sorted(
        name.removesuffix(".lin1.weight")
        for name in params
        if name.startswith("mask_decoder.") and name.endswith(".mlp.lin1.weight")
    )
    return Links(
        tuple(_norms(spec, params)),
        (NormLink("image_encoder.neck.1", "image_encoder.neck.2", True),),
        tuple(attention_link(params, name, head_dim) for name, head_dim in head_dims.items()),
        tuple(ReluLink(f"{mlp}.lin1", f"{mlp}.lin2") for mlp in hidden),
    )


def _norms(spec: SamSpec, params: Mapping[str, np.ndarray]) -> list[NormLink]:
    """Return the norms of the encoder's blocks with the layers that read them."""
    found, prefix = [], "image_encoder.blocks"
    count = sum(name.startswith(prefix) and name.endswith("norm1.weight") for name in params)
    for block in (f"{prefix}.{i}" for i in range(count)):
        window = (len(params[f"{block}.attn.rel_pos_h"]) + 1) // 2
        found.append(NormLink(f"{block}.norm1", f"{block}.attn.qkv", spec.grid % window != 0))
        found.append(NormLink(f"{block}.norm2", f"{block}.mlp.lin1", False))
    return found


def attention_link(params: Mapping[str, np.ndarray], name: str, head_dim: int) -> AttentionLink:
    """Return the layers of an attention, whether one layer makes queries, keys and values or three do."""
    if f"{name}.qkv.weight" in params:
        width = len(params[f"{name}.qkv.weight"]) // 3
        query, key, value = (Rows(f"{name}.qkv", slice(i * width, (i + 1) * width)) for i in range(3))
        tables = tuple(t for t in (f"{name}.rel_pos_h", f"{name}.rel_pos_w") if t in params)
        return AttentionLink(name, query, key, value, f"{name}.proj", head_dim, tables, in_encoder=True)
    query, key, value = (Rows(f"{name}.{role}_proj", slice(None)) for role in "qkv")
    return AttentionLink(name, query, key, value, f"{name}.out_proj", head_dim, (), in_encoder=False)
