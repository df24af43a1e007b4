"""Kernels in TIR: factories of PrimFuncs, one a file.

Integer kernels follow :mod:`tvm_ahcq.quantizers.core.reference` bit for bit.
"""

from __future__ import annotations

from tvm_ahcq.kernels.attention.dispatch import log_attention
from tvm_ahcq.kernels.attention.pool_queries import pool_queries
from tvm_ahcq.kernels.common.tvmscript_patch import speed_up_parser
from tvm_ahcq.kernels.encode.affine import encode_affine
from tvm_ahcq.kernels.encode.intervals import encode_intervals
from tvm_ahcq.kernels.encode.norm_encode import norm_encode
from tvm_ahcq.kernels.float32.dense import matmul
from tvm_ahcq.kernels.float32.gelu import gelu
from tvm_ahcq.kernels.float32.hypernet_matmul import hypernet_matmul
from tvm_ahcq.kernels.float32.layer_norm import layer_norm
from tvm_ahcq.kernels.gemm.dispatch import grouped_linear
from tvm_ahcq.kernels.gemm.fused import linear_add, linear_codes, linear_heads, linear_intervals
from tvm_ahcq.kernels.gemm.im2col import im2col

__all__ = [
    "encode_affine",
    "encode_intervals",
    "gelu",
    "grouped_linear",
    "hypernet_matmul",
    "im2col",
    "layer_norm",
    "linear_add",
    "linear_codes",
    "linear_heads",
    "linear_intervals",
    "log_attention",
    "matmul",
    "norm_encode",
    "pool_queries",
]

speed_up_parser()
