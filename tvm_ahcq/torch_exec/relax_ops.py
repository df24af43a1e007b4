"""Relax's own operators in torch, as far as the SAM graphs and our passes use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tvm_ahcq.errors import UnsupportedModelError

from .registry import TORCH_OPS, torch_op

Args = Sequence[Any]


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a TVM dtype such as ``"float32"``, ``"uint8"`` or ``"bool"``."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UnsupportedModelError(f"dtype {name!r} has no counterpart in torch; expected 'float32', 'int8', ...")
    return dtype


def _to(value: Tensor, dtype: str | None) -> Tensor:
    return value.to(torch_dtype(dtype)) if dtype and dtype != "void" else value


def _simple(names: dict[str, Callable[..., Tensor]]) -> None:
    """Register operators without attributes that take their arguments as torch does."""

    def direct(function: Callable[..., Tensor]) -> Callable[[SimpleNamespace, Args], Tensor]:
        return lambda attrs, args: function(*args)

    TORCH_OPS.update({f"relax.{name}": direct(function) for name, function in names.items()})


_simple(
    {
        "add": torch.add,
        "subtract": torch.subtract,
        "multiply": torch.multiply,
        "divide": torch.divide,
        "floor_divide": torch.floor_divide,
        "floor_mod": torch.remainder,
        "power": torch.pow,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "equal": torch.eq,
        "not_equal": torch.ne,
        "less": torch.lt,
        "less_equal": torch.le,
        "greater": torch.gt,
        "greater_equal": torch.ge,
        "logical_and": torch.logical_and,
        "logical_or": torch.logical_or,
        "logical_not": torch.logical_not,
        "bitwise_and": torch.bitwise_and,
        "bitwise_or": torch.bitwise_or,
        "negative": torch.neg,
        "abs": torch.abs,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "square": torch.square,
        "exp": torch.exp,
        "log": torch.log,
        "sin": torch.sin,
        "cos": torch.cos,
        "tanh": torch.tanh,
        "erf": torch.erf,
        "sigmoid": torch.sigmoid,
        "floor": torch.floor,
        "ceil": torch.ceil,
        "round": torch.round,
        "sign": torch.sign,
        "nn.relu": F.relu,
        "nn.gelu": F.gelu,
        "nn.silu": F.silu,
        "where": torch.where,
        "reshape": torch.reshape,
        "broadcast_to": torch.broadcast_to,
        "zeros_like": torch.zeros_like,
        "ones_like": torch.ones_like,
    }
)


@torch_op("relax.nn.gelu_tanh")
def _gelu_tanh(attrs: SimpleNamespace, args: Args) -> Tensor:
    return F.gelu(args[0], approximate="tanh")


@torch_op("relax.matmul")
def _matmul(attrs: SimpleNamespace, args: Args) -> Tensor:
    left, right = args
    if not left.is_floating_point():  # integer operands accumulate in the output type
        left, right = _to(left, attrs.out_dtype), _to(right, attrs.out_dtype)
    return _to(torch.matmul(left, right), attrs.out_dtype)


@torch_op("relax.einsum")
def _einsum(attrs: SimpleNamespace, args: Args) -> Tensor:
    return torch.einsum(attrs.subscripts, *args[0])


@torch_op("relax.astype")
def _astype(attrs: SimpleNamespace, args: Args) -> Tensor:
    return _to(args[0], attrs.dtype)


@torch_op("relax.permute_dims")
def _permute_dims(attrs: SimpleNamespace, args: Args) -> Tensor:
    axes = attrs.axes if attrs.axes is not None else range(args[0].ndim - 1, -1, -1)
    return args[0].permute(*axes)


@torch_op("relax.expand_dims")
def _expand_dims(attrs: SimpleNamespace, args: Args) -> Tensor:
    value = args[0]
    rank = value.ndim + len(attrs.axis)
    for axis in sorted(a % rank for a in attrs.axis):
        value = value.unsqueeze(axis)
    return value


@torch_op("relax.squeeze")
def _squeeze(attrs: SimpleNamespace, args: Args) -> Tensor:
    return args[0].squeeze() if attrs.axis is None else args[0].squeeze(tuple(attrs.axis))


@torch_op("relax.flatten")
def _flatten(attrs: SimpleNamespace, args: Args) -> Tensor:
    return args[0].flatten()


@torch_op("relax.concat")
def _concat(attrs: SimpleNamespace, args: Args) -> Tensor:
    return torch.cat(args[0], dim=attrs.axis or 0)


@torch_op("relax.stack")
def _stack(attrs: SimpleNamespace, args: Args) -> Tensor:
    return torch.stack(args[0], dim=attrs.axis or 0)


@torch_op("relax.split")
def _split(attrs: SimpleNamespace, args: Args) -> tuple[Tensor, ...]:
    return tuple(torch.tensor_split(args[0], attrs.indices_or_sections, dim=attrs.axis))


@torch_op("relax.strided_slice")
def _strided_slice(attrs: SimpleNamespace, args: Args) -> Tensor:
    value, axes, begin, end, *rest = args
    strides = rest[0] if rest else (1,) * len(axes)
    index = [slice(None)] * value.ndim
    for axis, first, last, stride in zip(axes, begin, end, strides, strict=True):
        if stride < 1:
            raise UnsupportedModelError(f"relax.strided_slice with stride {stride}; torch takes positive strides only")
        index[axis] = slice(first, last, stride)
    return value[tuple(index)]


@torch_op("relax.take")
def _take(attrs: SimpleNamespace, args: Args) -> Tensor:
    value, index = args
    axis = (attrs.axis or 0) % value.ndim  # without an axis, the value has one dimension
    if not isinstance(index, Tensor):
        return value.select(axis, index)
    if index.ndim == 0:
        return value.select(axis, int(index))
    taken = value.index_select(axis, index.flatten().long())
    return taken.reshape(value.shape[:axis] + index.shape + value.shape[axis + 1 :])


@torch_op("relax.tile")
def _tile(attrs: SimpleNamespace, args: Args) -> Tensor:
    return args[0].tile(attrs.repeats)


@torch_op("relax.repeat")
def _repeat(attrs: SimpleNamespace, args: Args) -> Tensor:
    return torch.repeat_interleave(args[0], attrs.repeats, dim=attrs.axis)


@torch_op("relax.cumsum")
def _cumsum(attrs: SimpleNamespace, args: Args) -> Tensor:
    return _to(args[0].cumsum(attrs.axis), attrs.dtype)


@torch_op("relax.clip")
def _clip(attrs: SimpleNamespace, args: Args) -> Tensor:
    return args[0].clamp(args[1], args[2])


def _reduction(function: Callable[..., Tensor]) -> Callable[[SimpleNamespace, Args], Tensor]:
    def reduce(attrs: SimpleNamespace, args: Args) -> Tensor:
        axes = tuple(range(args[0].ndim)) if attrs.axis is None else tuple(attrs.axis)
        return function(args[0], dim=axes, keepdim=attrs.keepdims)

    return reduce


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "max": torch.amax,
    "min": torch.amin,
}

for _name, _function in _REDUCTIONS.items():
    TORCH_OPS[f"relax.{_name}"] = _reduction(_function)


@torch_op("relax.arange")
def _arange(attrs: SimpleNamespace, args: Args) -> Tensor:
    return torch.arange(*args, dtype=torch_dtype(attrs.dtype))


@torch_op("relax.full")
def _full(attrs: SimpleNamespace, args: Args) -> Tensor:
    return _to(args[1], attrs.dtype).expand(args[0])


@torch_op("relax.full_like")
def _full_like(attrs: SimpleNamespace, args: Args) -> Tensor:
    return args[1].to(args[0].dtype).expand(args[0].shape)


@torch_op("relax.zeros")
def _zeros(attrs: SimpleNamespace, args: Args) -> Tensor:
    return torch.zeros(args[0], dtype=torch_dtype(attrs.dtype))


@torch_op("relax.ones")
def _ones(attrs: SimpleNamespace, args: Args) -> Tensor:
    return torch.ones(args[0], dtype=torch_dtype(attrs.dtype))


@torch_op("relax.nn.softmax")
def _softmax(attrs: SimpleNamespace, args: Args) -> Tensor:
    return args[0].softmax(attrs.axis)


@torch_op("relax.nn.layer_norm")
def _layer_norm(attrs: SimpleNamespace, args: Args) -> Tensor:
    value, gamma, beta = args
    if sorted(axis % value.ndim for axis in attrs.axes) != list(range(value.ndim - len(attrs.axes), value.ndim)):
        raise UnsupportedModelError(f"relax.nn.layer_norm over axes {attrs.axes}; only trailing axes are supported")
    gamma, beta = gamma if attrs.scale else None, beta if attrs.center else None
    return F.layer_norm(value, value.shape[-len(attrs.axes) :], gamma, beta, attrs.epsilon)


@torch_op("relax.nn.pad")
def _pad(attrs: SimpleNamespace, args: Args) -> Tensor:
    before_after = [attrs.pad_width[i : i + 2] for i in range(0, len(attrs.pad_width), 2)]
    widths = [int(width) for pair in reversed(before_after) for width in pair]  # torch counts from the last axis
    if attrs.pad_mode != "constant":
        raise UnsupportedModelError(f"relax.nn.pad with mode {attrs.pad_mode!r}; only 'constant' is supported")
    return F.pad(args[0], widths, value=float(attrs.pad_value))


def _check_convolution(name: str, attrs: SimpleNamespace, kernel_layout: str) -> tuple[int, int]:
    """Symmetric padding (vertical, horizontal) of a convolution in torch's own layouts."""
    top, left, bottom, right = attrs.padding
    layouts = (attrs.data_layout, attrs.kernel_layout)
    if layouts != ("NCHW", kernel_layout) or (top, left) != (bottom, right):
        raise UnsupportedModelError(
            f"{name} with layouts {layouts} and padding {attrs.padding}; "
            f"expected layouts ('NCHW', {kernel_layout!r}) and symmetric padding"
        )
    return top, left


@torch_op("relax.nn.conv2d")
def _conv2d(attrs: SimpleNamespace, args: Args) -> Tensor:
    padding = _check_convolution("relax.nn.conv2d", attrs, "OIHW")
    return F.conv2d(args[0], args[1], None, attrs.strides, padding, attrs.dilation, attrs.groups)


@torch_op("relax.nn.conv2d_transpose")
def _conv2d_transpose(attrs: SimpleNamespace, args: Args) -> Tensor:
    padding = _check_convolution("relax.nn.conv2d_transpose", attrs, "IOHW")
    return F.conv_transpose2d(
        args[0], args[1], None, attrs.strides, padding, attrs.output_padding, attrs.groups, attrs.dilation
    )


@torch_op("relax.nn.max_pool2d")
def _max_pool2d(attrs: SimpleNamespace, args: Args) -> Tensor:
    if attrs.layout != "NCHW" or any(attrs.padding) or attrs.ceil_mode:
        given = attrs.layout, attrs.padding, attrs.ceil_mode
        raise UnsupportedModelError(f"relax.nn.max_pool2d with {given}; expected layout 'NCHW' without padding")
    return F.max_pool2d(args[0], attrs.pool_size, attrs.strides, dilation=attrs.dilation)


@torch_op("relax.image.resize2d")
def _resize2d(attrs: SimpleNamespace, args: Args) -> Tensor:
    given = (attrs.layout, attrs.method, attrs.coordinate_transformation_mode)
    if given != ("NCHW", "linear", "half_pixel"):
        raise UnsupportedModelError(f"relax.image.resize2d with {given}; expected ('NCHW', 'linear', 'half_pixel')")
    return F.interpolate(args[0], size=tuple(args[1]), mode="bilinear", align_corners=False)
