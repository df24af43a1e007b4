"""Muon in float32: torch's own orthogonalises in bfloat16, which is slow on CPUs without bfloat16 instructions."""

from __future__ import annotations

from collections import defaultdict

import torch

_COEFFICIENTS, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of the Newton-Schulz iteration, as in ``torch.optim.Muon``."""


class Muon(torch.optim.Optimizer):
    """Momentum whose updates of matrices are orthogonalised (as ``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``).

    Parameters
    ----------
    groups : list of dict
        Parameter groups of matrices.
    lr, momentum, weight_decay : float
        As in ``torch.optim.Muon``.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float = 0.95, weight_decay: float = 0.02):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix that has a gradient; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _momentum(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Nesterov momentum of a parameter's gradient."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly orthogonal matrices with the singular vectors of ``(B, M, N)`` ones; singular values become about 1."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
