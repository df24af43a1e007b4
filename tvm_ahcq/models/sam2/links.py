"""Links between the layers of a SAM 2 along which parameters can change without changing its function."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ahcq.models.links import Links, NormLink, ReluLink
from tvm_ahcq.models.sam.exchanges import modules_like
from tvm_ahcq.models.sam.links import attention_link

from .spec import Sam2Spec


def links(spec: Sam2Spec, params: Mapping[str, np.ndarray], head_dims: Mapping[str, int]) -> Links:
    """Return the links of the picture side of a SAM 2; channels of its memory turn or have no value layer.

    Parameters
    ----------
    spec : Sam2Spec
        Figures of the model.
    params : mapping of str to numpy.ndarray
        By name in the state dict.
    head_dims : mapping of str to int
        Channels of a head of every attention, by its name.
    """
    norms = []
    for block in modules_like(params, r"image_encoder\.trunk\.blocks\.\d+"):
        if f"{block}.proj.weight" not in params:  # the shortcut of a widening block reads norm1 too
            norms.append(NormLink(f"{block}.norm1", f"{block}.attn.qkv", padded=True))
        norms.append(NormLink(f"{block}.norm2", f"{block}.mlp.layers.0", padded=False))
    pictures = {name: size for name, size in head_dims.items() if not name.startswith("memory_attention.")}
    mlps = modules_like(params, r"sam_mask_decoder\.transformer\.layers\.\d+\.mlp")
    return Links(
        tuple(norms),
        neck=(),  # laterals read the residual stream, not a norm
        attentions=tuple(attention_link(params, name, head_dim) for name, head_dim in pictures.items()),
        relus=tuple(ReluLink(f"{mlp}.layers.0", f"{mlp}.layers.1") for mlp in mlps),
    )
