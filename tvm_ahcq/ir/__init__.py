"""The ``relax.ahcq.*`` operators: float forms (linear, conv2d, attention, quantize) and their integer counterparts."""

import sys

import tvm.relax.script
import tvm.relax.script.parser

from .attention import attention, log_attention
from .conv2d import conv2d, im2col
from .hypernet_matmul import hypernet_matmul
from .linear import grouped_linear, linear
from .quantize import encode_affine, encode_intervals, quantize
from .register import is_op

__all__ = [
    "attention",
    "conv2d",
    "encode_affine",
    "encode_intervals",
    "grouped_linear",
    "hypernet_matmul",
    "im2col",
    "is_op",
    "linear",
    "log_attention",
    "quantize",
]

# TVMScript that contains ``R.ahcq.linear(...)`` and the like parses by this name.
tvm.relax.script.ahcq = tvm.relax.script.parser.ahcq = sys.modules[__name__]
