"""Kernels in TIR: factories of PrimFuncs, each in a file of its own.

Integer kernels follow :mod:`tvm_ahcq.quantizers.reference` bit for bit.
"""

from __future__ import annotations

from .attention import log_attention
from .dense import matmul
from .encode_affine import encode_affine
from .encode_intervals import encode_intervals
from .gelu import gelu
from .im2col import im2col
from .layer_norm import layer_norm
from .linear import grouped_linear
from .linear_fused import linear_add, linear_codes, linear_heads, linear_intervals
from .norm_encode import norm_encode
from .pixel_product import pixel_product
from .script import speed_up_inlining

__all__ = [
    "encode_affine",
    "encode_intervals",
    "gelu",
    "grouped_linear",
    "im2col",
    "layer_norm",
    "linear_add",
    "linear_codes",
    "linear_heads",
    "linear_intervals",
    "log_attention",
    "matmul",
    "norm_encode",
    "pixel_product",
]

speed_up_inlining()
