"""Torch handlers of the ``relax.ahcq.*`` operators: float ones in torch, integer ones by the numpy reference."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch

from tvm_ahcq.quantizers.core import reference

from .registry import torch_op
from .simulate import current_sites


@torch_op("relax.ahcq.linear")
def _linear(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    return current_sites().linear(attrs.name, *args)


@torch_op("relax.ahcq.conv2d")
def _conv2d(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    return current_sites().conv2d(attrs.name, *args)


@torch_op("relax.ahcq.quantize")
def _quantize(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    return current_sites().activation(attrs.site, args[0], attrs.activation)


@torch_op("relax.ahcq.attention")
def _attention(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    q, k, v = (operand.flatten(0, -3) for operand in args[:3])
    rel = tuple(args[3:]) or (None, None)
    return current_sites().attention(attrs.name, q, k, v, attrs.scale, *rel).reshape(*args[0].shape[:-1], -1)


@torch_op("relax.ahcq.encode_affine")
def _encode_affine(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    x, index, bounds, scale, zero_point = (arg.numpy() for arg in args)
    return torch.from_numpy(reference.encode_affine(x, index, np.diff(bounds).tolist(), scale, zero_point, attrs.bits))


@torch_op("relax.ahcq.encode_intervals")
def _encode_intervals(_attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.from_numpy(reference.encode_intervals(*(arg.numpy() for arg in args)))


@torch_op("relax.ahcq.im2col")
def _im2col(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.from_numpy(reference.im2col(args[0].numpy(), attrs.kernel, int(args[1][0])))


@torch_op("relax.ahcq.grouped_linear")
def _grouped_linear(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    operands, packed, bounds, multiplier, correction, bias = (arg.numpy() for arg in args)
    if attrs.layout == "vnni16":
        packed = packed.transpose(0, 2, 1, 3).reshape(-1, operands.shape[-1])[: len(bias)]
    rows = operands.reshape(-1, operands.shape[-1])
    y = reference.grouped_linear(rows, packed, np.diff(bounds).tolist(), multiplier, correction, bias)
    return torch.from_numpy(y.reshape(*operands.shape[:-1], -1))


@torch_op("relax.ahcq.log_attention")
def _log_attention(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    q, k, v = (operand.flatten(0, -3).numpy() for operand in args[:3])
    scalars, thresholds, table, out_scale, *rel = (arg.numpy() for arg in args[3:])
    constants = reference.AttentionConstants.of(scalars, thresholds, table, out_scale[0], bool(attrs.row_relative))
    return torch.from_numpy(reference.log_attention(q, k, v, constants, *rel)).reshape(*args[0].shape[:-1], -1)
