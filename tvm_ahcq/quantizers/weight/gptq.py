"""Error-compensated rounding: each column's rounding error is made up for by the columns not rounded yet.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022. The objective
is the layer's output error on its calibration inputs, ``tr((W - Q) H (W - Q)^T)`` with ``H = X^T X``.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from tvm_ahcq.errors import CalibrationError, CheckpointError
from tvm_ahcq.quantizers.core.params import check_bits

DAMPING = 0.01
"""Added to the Hessian's diagonal, as a share of its mean."""

_MAX_DAMPING = 1e3


def round_gptq(
    weight: np.ndarray,
    hessian: np.ndarray | Curvature,
    scale: np.ndarray,
    zero_point: np.ndarray,
    bits: int,
    *,
    block: int = 128,
    sweeps: int = 0,
) -> np.ndarray:
    """Codes of least output error for given scales and zero points, found column by column.

    A row is never worse than rounded to nearest: where compensation loses (it may, as it is greedy), that row stays
    rounded to nearest.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32.
    hessian : numpy.ndarray or Curvature
        ``(K, K)`` second moment of the inputs, ``X^T X`` up to a factor, symmetric. Inputs that are always zero (a zero
        on its diagonal) have their weights rounded to nearest. A :class:`Curvature` serves several weights.
    scale, zero_point : numpy.ndarray
        ``(N,)`` of each output channel.
    bits : int
        Code width.
    block : int
        Columns whose corrections are gathered before they reach the columns after them; it does not change the result.
    sweeps : int
        Rounds of coordinate descent afterwards (each code in turn takes the value that is best while all others stay).

    Returns
    -------
    numpy.ndarray
        ``(N, K)`` uint8 codes.

    Raises
    ------
    CheckpointError
        If the weight is not two-dimensional or not finite.
    CalibrationError
        If the Hessian is not finite.
    """
    curvature = hessian if isinstance(hessian, Curvature) else Curvature(hessian)
    problem = _Problem(weight, curvature, scale, zero_point, bits)
    steps = torch.empty_like(problem.weight)
    order, factor = curvature.order, curvature.factor
    steps[:, order] = _compensate(problem, problem.weight[:, order], factor, block)
    for _ in range(sweeps):
        steps = _sweep(problem, steps, block)
    nearest = problem.round(problem.weight)
    lost = problem.error(steps) > problem.error(nearest)
    steps[lost] = nearest[lost]
    return problem.codes(steps)


class Curvature:
    """Second moment of a layer's inputs, and its decomposition: the cost of rounding that all weights share.

    Parameters
    ----------
    hessian : numpy.ndarray
        ``(K, K)`` ``X^T X`` up to a factor, symmetric.
    damping : float
        Share of the mean diagonal that is added to the diagonal.
    act_order : bool
        Columns of large inputs first, while there are many columns left to compensate with.

    Raises
    ------
    CalibrationError
        If it is not finite.
    """

    def __init__(self, hessian: np.ndarray, damping: float = DAMPING, act_order: bool = True) -> None:
        hessian = np.asarray(hessian, np.float64)
        if not np.isfinite(hessian).all() or (hessian.diagonal() < 0).any():
            raise CalibrationError(
                "The second moment of a layer's inputs is not finite, or negative on its diagonal; "
                "check the checkpoint and the images."
            )
        # a common factor does not matter, but float32 must hold the entries
        self.hessian = torch.from_numpy(hessian / (hessian.diagonal().mean() or 1.0))
        self.damping, self.act_order = damping, act_order

    @cached_property
    def order(self) -> torch.Tensor:
        """``(K,)`` columns in the order in which they are rounded."""
        diagonal = self.hessian.diagonal()
        return torch.argsort(diagonal, descending=True, stable=True) if self.act_order else torch.arange(len(diagonal))

    @cached_property
    def factor(self) -> torch.Tensor:
        """``(K, K)`` how an error spreads, in that order; see :func:`_inverse_factor`."""
        return _inverse_factor(self.hessian[self.order][:, self.order], self.damping)

    @cached_property
    def matrix(self) -> torch.Tensor:
        """``(K, K)`` float32."""
        return self.hessian.float()


class _Problem:
    """Weight and grids as tensors; `steps` are ``code - zero_point`` as float32."""

    def __init__(
        self, weight: np.ndarray, curvature: Curvature, scale: np.ndarray, zero_point: np.ndarray, bits: int
    ) -> None:
        weight = np.ascontiguousarray(weight, np.float32)
        if weight.ndim != 2 or weight.size == 0 or not np.isfinite(weight).all():
            raise CheckpointError(
                f"A weight of shape {weight.shape} cannot be rounded; expected two axes and finite values. "
                "Check the checkpoint."
            )
        rows, columns = weight.shape
        shapes = (tuple(curvature.hessian.shape), np.shape(scale), np.shape(zero_point))
        expected = ((columns, columns), (rows,), (rows,))
        if shapes != expected:
            raise ValueError(f"Hessian, scale and zero point have shapes {shapes}; expected {expected}.")
        self.weight, self.curvature = torch.from_numpy(weight), curvature
        self.scale = torch.from_numpy(np.asarray(scale, np.float32))[:, None]
        self.zero = torch.from_numpy(np.asarray(zero_point, np.float32))[:, None]
        self.low, self.high = -self.zero, np.float32(2 ** check_bits(bits) - 1) - self.zero

    def round(self, weight: torch.Tensor) -> torch.Tensor:
        """Nearest steps."""
        return (weight / self.scale).round_().clamp_(self.low, self.high)

    def round_column(self, column: torch.Tensor) -> torch.Tensor:
        """Nearest steps of one column ``(N,)``."""
        return torch.clamp((column / self.scale[:, 0]).round_(), self.low[:, 0], self.high[:, 0])

    def error(self, steps: torch.Tensor) -> torch.Tensor:
        """``(N,)`` float64, proportional to the output error of each row."""
        difference = self.weight - steps * self.scale
        return (difference @ self.curvature.matrix).mul_(difference).sum(1, dtype=torch.float64)

    def codes(self, steps: torch.Tensor) -> np.ndarray:
        """uint8 codes."""
        return (steps + self.zero).to(torch.uint8).numpy()


def _inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper triangular U, float32, with ``U^T U`` the inverse of the damped Hessian.

    Reversing rows and columns turns the lower Cholesky factor into an upper one, R, with ``H = R R^T``; then
    ``U = R^-1``: one decomposition, and the inverse is never formed.
    """
    diagonal = hessian.diagonal()
    while True:
        # an input that is always zero gets some curvature of its own, and so nearest rounding
        damped = hessian + torch.diag(torch.where(diagonal > 0, damping * diagonal.mean(), 1.0))
        lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
        if not failed:
            break
        if damping > _MAX_DAMPING:
            raise CalibrationError("The second moment of a layer's inputs is not positive; check how it was gathered.")
        damping = max(10 * damping, 1e-8)
    upper = lower.flip(0, 1)
    identity = torch.eye(len(upper), dtype=upper.dtype)
    return torch.linalg.solve_triangular(upper, identity, upper=True).float()


def _compensate(problem: _Problem, weight: torch.Tensor, factor: torch.Tensor, block: int) -> torch.Tensor:
    """Round the columns of `weight` in order, each error spread over the columns after it; returns steps."""
    weight, steps = weight.clone(), torch.empty_like(weight)
    columns = weight.shape[1]
    for start in range(0, columns, block):
        end = min(start + block, columns)
        # columns as rows: contiguous in the loop
        part = weight[:, start:end].T.contiguous()
        errors = torch.empty_like(part)
        inner = factor[start:end, start:end].contiguous()
        for j in range(end - start):
            rounded = problem.round_column(part[j])
            steps[:, start + j] = rounded
            torch.div(part[j] - rounded * problem.scale[:, 0], inner[j, j], out=errors[j])
            part[j + 1 :].addr_(inner[j, j + 1 :], errors[j], alpha=-1)
        weight[:, end:].addmm_(errors.T, factor[start:end, end:], alpha=-1)
    return steps


def _sweep(problem: _Problem, steps: torch.Tensor, block: int) -> torch.Tensor:
    """One round of coordinate descent over all columns, the largest inputs first."""
    steps = steps.clone()
    scale = problem.scale[:, 0]
    diagonal = problem.curvature.hessian.diagonal()
    order = torch.argsort(diagonal, descending=True, stable=True)
    order = order[diagonal[order] > 0]
    hessian = problem.curvature.matrix
    gradient = ((problem.weight - steps * problem.scale) @ hessian).T.contiguous()
    for chosen in order.split(block):
        inner = hessian[chosen][:, chosen]
        part, now = gradient[chosen], steps[:, chosen].T.contiguous()
        before = now.clone()
        for j in range(len(chosen)):
            # the error is a parabola in this code; its least point moves by gradient / curvature
            wanted = now[j] + part[j] / (inner[j, j] * scale)
            moved = torch.clamp(wanted.round_(), problem.low[:, 0], problem.high[:, 0])
            part.addr_(inner[j], (moved - now[j]) * scale, alpha=-1)
            now[j] = moved
        steps[:, chosen] = now.T
        gradient.addmm_(hessian[:, chosen], (now - before) * scale, alpha=-1)
    return steps
