"""Places of a SAM where channels can be rescaled without changing its function."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tvm_ahcq.quantizers.weight.equalise import Exchange

VALUE_SHARE = 0.7
"""Part of the difference between the channels of values that goes to the projection that reads them."""


def exchanges(params: Mapping[str, np.ndarray]) -> list[Exchange]:
    """Return every place of a SAM where channels can be rescaled, by the names of its parameters."""
    found = []
    for block in modules_like(params, r"image_encoder\.blocks\.\d+"):
        for norm, reader in (("norm1", "attn.qkv"), ("norm2", "mlp.lin1")):
            rows = (f"{block}.{norm}.weight", 0), (f"{block}.{norm}.bias", 0)
            columns = (f"{block}.{reader}.weight",)
            found.append(Exchange(f"{block}.{norm}", rows, columns, len(params[rows[0][0]])))
        found += fused_attention(params, f"{block}.attn")
    for layer in modules_like(params, r"mask_decoder\.transformer\.layers\.\d+"):
        rows = (f"{layer}.mlp.lin1.weight", 0), (f"{layer}.mlp.lin1.bias", 0)
        channels = len(params[rows[0][0]])
        found.append(Exchange(f"{layer}.mlp.lin1", rows, (f"{layer}.mlp.lin2.weight",), channels))
    for attention in modules_like(params, r"mask_decoder\.transformer\.(?:layers\.\d+\.)?(?:self|cross|final)_attn\w*"):
        found += separate_attention(params, attention)
    return found


def modules_like(params: Mapping[str, np.ndarray], pattern: str) -> list[str]:
    """Return the modules whose name matches all of `pattern`, in the order of the parameters."""
    matches = (re.match(rf"({pattern})\.", name) for name in params)
    return list(dict.fromkeys(match.group(1) for match in matches if match))


def fused_attention(params: Mapping[str, np.ndarray], name: str) -> list[Exchange]:
    """Return the exchanges of an attention whose queries, keys and values one layer ``qkv`` makes."""
    qkv, dim = f"{name}.qkv", len(params[f"{name}.proj.weight"])
    parts = [tuple((f"{qkv}.{kind}", role * dim) for kind in ("weight", "bias")) for role in range(3)]
    tables = tuple(f"{name}.rel_pos_{axis}" for axis in "hw" if f"{name}.rel_pos_{axis}" in params)
    heads = dim // params[tables[0]].shape[-1] if tables else 1
    return [
        Exchange(f"{name}.qk", parts[0], (), dim, parts[1], tables, heads, measured_at_producer=True),
        _values(name, parts[2], f"{name}.proj.weight", dim),
    ]


def separate_attention(params: Mapping[str, np.ndarray], name: str) -> list[Exchange]:
    """Return the exchanges of an attention with layers ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``."""
    q, k = (tuple((f"{name}.{role}_proj.{kind}", 0) for kind in ("weight", "bias")) for role in "qk")
    channels = len(params[f"{name}.q_proj.weight"])
    return [Exchange(f"{name}.qk", q, (), channels, k, measured_at_producer=True), values(params, name)]


def values(params: Mapping[str, np.ndarray], name: str) -> Exchange:
    """Return the exchange of the values of an attention with layers ``v_proj`` and ``out_proj``."""
    rows = tuple((f"{name}.v_proj.{kind}", 0) for kind in ("weight", "bias"))
    return _values(name, rows, f"{name}.out_proj.weight", len(params[rows[0][0]]))


def _values(name: str, rows: tuple[tuple[str, int], ...], reader: str, channels: int) -> Exchange:
    """Channels of the values of an attention."""
    return Exchange(f"{name}.v", rows, (reader,), channels, share=VALUE_SHARE, measured_at_producer=True)
