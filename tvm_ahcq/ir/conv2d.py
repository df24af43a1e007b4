"""``ahcq.conv2d`` (float, channels last) and ``ahcq.im2col``, which turns its integer form into a linear layer."""

from __future__ import annotations

from tvm import relax

from .register import call, register, tensor_type


def _infer_conv2d(expr: relax.Call) -> relax.TensorType:
    """Stride-1, same-padded convolution: (B, H, W, C), (O, C, k, k) -> (B, H, W, O)."""
    return tensor_type(expr.args[0], last=expr.args[1].ty.shape.values[0])


def _infer_im2col(expr: relax.Call) -> relax.TensorType:
    """Patches of a same-padded convolution: (B, H, W, C) -> (B, H, W, k * k * C)."""
    kernel = int(expr.attrs["kernel"])
    return tensor_type(expr.args[0], last=expr.args[0].ty.shape.values[-1] * kernel * kernel)


register("conv2d", ("x", "weight"), _infer_conv2d, required=2)
register("im2col", ("codes", "zero_point"), _infer_im2col, required=2)


def conv2d(x: relax.Expr, weight: relax.Expr, *, name: str) -> relax.Call:
    """Float stride-1, same-padded convolution without bias; `x` ``(B, H, W, C)``, `weight` ``(O, C, k, k)``, k odd."""
    return call("conv2d", x, weight, name=name)


def im2col(codes: relax.Expr, zero_point: relax.Expr, *, kernel: int) -> relax.Call:
    """Patches of uint8 codes, as :func:`tvm_ahcq.quantizers.core.reference.im2col`; `zero_point` is ``(1,)`` int32."""
    return call("im2col", codes, zero_point, kernel=int(kernel))
