"""Loss of block reconstruction: output error, and a penalty that settles soft rounding.

See docs/quantizers.md#adaround and docs/quantizers.md#block-reconstruction.
"""

from __future__ import annotations

import torch

from tvm_ahcq.torch_exec.adaround import rounding

PENALTY_WEIGHT = 0.01
"""Published weight of the rounding penalty."""

WARM_UP, BETA_START, BETA_END = 0.2, 20.0, 2.0
"""Published schedule: share of the iterations before the penalty sets in; exponents at its start and end."""


def output_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error summed over axis 1 and averaged over the others, scalar."""
    return (output - target).square().sum(1).mean()


def rounding_penalty(alpha: torch.Tensor, beta: float, weight: float = PENALTY_WEIGHT) -> torch.Tensor:
    """``weight * sum(1 - |2 h(alpha) - 1| ** beta)``, scalar: 0 where every h is 0 or 1."""
    return weight * (1 - (2 * rounding(alpha) - 1).abs().pow(beta)).sum()


def penalty_applies(iteration: int, iterations: int, warm_up: float = WARM_UP) -> bool:
    """Return True if the rounding penalty counts at an iteration (from 0)."""
    return iteration >= warm_up * iterations


def temperature(
    iteration: float,
    iterations: int,
    warm_up: float = WARM_UP,
    start: float = BETA_START,
    end: float = BETA_END,
) -> float:
    """Exponent of the penalty: `start` during the warm-up, then linear, `end` from the last iteration on."""
    first = warm_up * iterations
    if iteration < first:
        return start
    return end + (start - end) * max(0.0, 1 - (iteration - first) / (iterations - first))
