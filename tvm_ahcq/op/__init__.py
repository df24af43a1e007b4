"""The ``relax.ahcq.*`` operators: float forms (linear, conv2d, attention, quantize) and their integer counterparts."""

from . import torch_semantics  # noqa: F401  (registers them)
from .attention import attention, log_attention
from .conv2d import conv2d, im2col
from .linear import grouped_linear, linear
from .quantize import encode_affine, encode_intervals, quantize
from .register import is_op

__all__ = [
    "attention",
    "conv2d",
    "encode_affine",
    "encode_intervals",
    "grouped_linear",
    "im2col",
    "is_op",
    "linear",
    "log_attention",
    "quantize",
]
