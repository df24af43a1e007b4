"""AdaRound: learned rounding of weights, as differentiable torch functions.

arXiv 2004.10568; see docs/quantizers.md#adaround. Every weight is rounded down, plus ``h(alpha)``: between 0 and 1
while alpha is learned, and 0 or 1 at the end.
"""

from __future__ import annotations

import torch

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
"""Ends of the sigmoid before it is clipped to [0, 1], so that 0 and 1 are reached."""


def alpha_start(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the alpha whose soft weight is `weight` itself: ``-ln(1.2 / (r + 0.1) - 1)``, r = steps - floor(steps).

    Parameters
    ----------
    weight : torch.Tensor
        ``(N, ...)`` float32.
    scale : torch.Tensor
        ``(N,)`` float32 step of each output channel.
    """
    steps = weight / _per_row(scale, weight)
    part = (steps - steps.floor() - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW)
    return torch.logit(part)


def rounding(alpha: torch.Tensor) -> torch.Tensor:
    """Return ``h(alpha) = clip(1.2 sigmoid(alpha) - 0.1, 0, 1)``, the share of a step that rounds up."""
    return (torch.sigmoid(alpha) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW).clamp(0, 1)


def soft_weight(
    weight: torch.Tensor, alpha: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, bits: int
) -> torch.Tensor:
    """Return ``(clip(floor(w / s) + h(alpha) + z, 0, Q) - z) s``, differentiable in `alpha`.

    Parameters
    ----------
    weight, alpha : torch.Tensor
        ``(N, ...)`` float32.
    scale, zero_point : torch.Tensor
        ``(N,)`` of each output channel; they stay fixed.
    bits : int
        Code width.
    """
    scale, zero_point = _per_row(scale, weight), _per_row(zero_point.to(weight.dtype), weight)
    codes = (weight / scale).floor() + rounding(alpha) + zero_point
    return (codes.clamp(0, 2**bits - 1) - zero_point) * scale


def hard_codes(
    weight: torch.Tensor, alpha: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, bits: int
) -> torch.Tensor:
    """Return codes ``clip(floor(w / s) + [alpha >= 0] + z, 0, Q)``, uint8; parameters as for :func:`soft_weight`."""
    scale, zero_point = _per_row(scale, weight), _per_row(zero_point.to(weight.dtype), weight)
    codes = (weight / scale).floor() + (alpha >= 0) + zero_point
    return codes.clamp(0, 2**bits - 1).to(torch.uint8)


def _per_row(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``(N,)`` values shaped to broadcast over the rows of `weight`."""
    return values.reshape((-1,) + (1,) * (weight.ndim - 1))
