"""Muon in float32: torch's own orthogonalises in bfloat16, which is slow on CPUs without bfloat16 instructions."""

from __future__ import annotations

import torch
from torch import distributed

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
    rank, workers : int
        Number of this process, and of all that have equal gradients: each orthogonalises a part of the matrices.
    """

    def __init__(
        self,
        groups: list[dict],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.02,
        rank: int = 0,
        workers: int = 1,
    ):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._rank, self._workers = rank, workers

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix that has a gradient."""
        learning = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        learning.sort(key=lambda pair: pair[0].numel())  # large and small ones alternate between processes
        updates = []
        for number, (parameter, group) in enumerate(learning):
            update = self._momentum(parameter, group["momentum"])
            mine = number % self._workers == self._rank
            updates.append(orthogonal(update) if mine else torch.zeros_like(update))
        if self._workers > 1 and updates:
            total = torch.cat([update.flatten() for update in updates])
            distributed.all_reduce(total)
            updates = total.split([update.numel() for update in updates])
        for (parameter, group), update in zip(learning, updates, strict=True):
            rate = group["lr"] * 0.2 * max(parameter.shape) ** 0.5
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.view_as(parameter), alpha=-rate)

    def _momentum(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Nesterov momentum of a parameter's gradient."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Nearly orthogonal matrix with the singular vectors of an ``(M, N)`` one; singular values become about 1."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
