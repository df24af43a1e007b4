"""Fake quantization in torch with learned scales: straight-through rounding, gradients of the scales.

LSQ, arXiv 1902.08153; see docs/quantizers.md#lsq. The forward values are those of the parameter classes.
"""

from __future__ import annotations

from typing import Any

import torch

MIN_LEARNED_SCALE = 1.1920929e-07
"""Floor of a learned scale, float32's epsilon."""


def gradient_factor(count: int, bits: int) -> float:
    """Return ``1 / sqrt(N Q)``, the factor of a scale's gradient when N values share it."""
    return (count * (2**bits - 1)) ** -0.5


def uniform_lsq(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | int, bits: int) -> torch.Tensor:
    """Apply a uniform quantizer with one scale, differentiable in `x` and `scale`.

    Parameters
    ----------
    x : torch.Tensor
        Any shape, float32.
    scale : torch.Tensor
        One element; ``max(|scale|, MIN_LEARNED_SCALE)`` is used.
    zero_point : torch.Tensor or int
        Code of 0; not learned.
    bits : int
        Code width.

    Returns
    -------
    torch.Tensor
        Shape of `x`. The gradient of `scale` has the factor :func:`gradient_factor` of all elements.
    """
    step = scale.abs().clamp_min(MIN_LEARNED_SCALE).reshape(())
    zero_point = torch.as_tensor(zero_point, dtype=x.dtype, device=x.device).reshape(())
    return _Affine.apply(x, step, zero_point, bits, gradient_factor(x.numel(), bits))


def grouped_lsq(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, group_of: torch.Tensor, bits: int
) -> torch.Tensor:
    """Apply a CAG quantizer with learned scales, differentiable in `x` and `scale`.

    Parameters
    ----------
    x : torch.Tensor
        ``(..., C)`` float32.
    scale, zero_point : torch.Tensor
        ``(G,)``; zero points are not learned.
    group_of : torch.Tensor
        ``(C,)`` int64 group of each channel.
    bits : int
        Code width.

    Returns
    -------
    torch.Tensor
        Shape of `x`. A group's gradient is the sum of its channels', with the factor of the elements of one channel.
    """
    step = scale.abs().clamp_min(MIN_LEARNED_SCALE)[group_of]
    return _Affine.apply(x, step, zero_point.to(x.dtype)[group_of], bits, gradient_factor(x[..., 0].numel(), bits))


def table_lsq(
    x: torch.Tensor, delta: torch.Tensor, offset: torch.Tensor | float, table: torch.Tensor, boundaries: torch.Tensor
) -> torch.Tensor:
    """Apply a table quantizer ``offset + delta * table[code]``, differentiable in `x` and `delta`.

    The published gradient of HLUQ's log scale is zero for every value in range. Here rounding passes its gradient
    straight through in the linear domain for all levels, as in LSQ: a value in range contributes its rounding error
    ``table[code] - (x - offset) / delta``.

    Parameters
    ----------
    x : torch.Tensor
        Any shape, float32.
    delta : torch.Tensor
        One element; ``max(|delta|, MIN_LEARNED_SCALE)`` is used.
    offset : torch.Tensor or float
        Value of code 0; not learned.
    table : torch.Tensor
        ``(n,)`` ascending from 0.
    boundaries : torch.Tensor
        ``(n - 1,)`` between the entries, in units of the table.
    """
    step = delta.abs().clamp_min(MIN_LEARNED_SCALE).reshape(())
    offset = torch.as_tensor(offset, dtype=x.dtype, device=x.device)
    factor = (x.numel() * float(table[-1])) ** -0.5
    return _Table.apply(x, step, offset, table.to(x.dtype), boundaries.to(x.dtype), factor)


class _Affine(torch.autograd.Function):
    """``(clip(rint(x / s) + z, 0, Q) - z) s`` with straight-through rounding; only `x` is saved for backward."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, step: torch.Tensor, zero_point: torch.Tensor, bits: int, factor: float
    ) -> torch.Tensor:
        ctx.save_for_backward(x, step, zero_point)
        ctx.bits, ctx.factor = bits, factor
        codes = (x / step).round_().add_(zero_point).clamp_(0, 2**bits - 1)
        return codes.sub_(zero_point).mul_(step)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, step, zero_point = ctx.saved_tensors
        scaled = x / step
        codes = scaled.round().add_(zero_point)
        inside = (codes >= 0) & (codes <= 2**ctx.bits - 1)
        grad_x = upstream * inside if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None, None, None
        # out = (c - z) s: the codes themselves, and inside the range the rounded quotient's -x / s^2 times s
        slope = codes.clamp_(0, 2**ctx.bits - 1).sub_(zero_point).sub_(scaled.mul_(inside)).mul_(upstream)
        total = slope.sum() if step.ndim == 0 else slope.reshape(-1, step.numel()).sum(0)
        return grad_x, total * ctx.factor, None, None, None


class _Table(torch.autograd.Function):
    """``offset + delta * table[code]``, straight through in the linear domain between the ends of the table."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        delta: torch.Tensor,
        offset: torch.Tensor,
        table: torch.Tensor,
        boundaries: torch.Tensor,
        factor: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, delta, offset, table, boundaries)
        ctx.factor = factor
        return table[torch.bucketize(x, offset + delta * boundaries)] * delta + offset

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, delta, offset, table, boundaries = ctx.saved_tensors
        scaled = (x - offset) / delta
        inside = (scaled >= 0) & (scaled <= table[-1])
        grad_x = upstream * inside if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None, None, None, None
        entries = table[torch.bucketize(x, offset + delta * boundaries)]
        slope = (entries - scaled.mul_(inside)).mul_(upstream)
        return grad_x, slope.sum() * ctx.factor, None, None, None, None
