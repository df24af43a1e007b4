"""Error-compensated rounding (GPTQ): the columns not rounded yet compensate for each column's rounding error.

GPTQ is arXiv 2210.17323; see docs/quantizers.md#error-compensated-rounding. The objective is the layer's output error
on its calibration inputs, ``tr((W - Q) H (W - Q)^T)`` with ``H = X^T X``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from tvm_ahcq.errors import CalibrationError, CheckpointError

from .weights import QuantizedWeight

DAMPING = 0.01
"""Added to the Hessian's diagonal, as a share of its mean."""

_MAX_DAMPING = 1e3


def round_gptq(
    weight: np.ndarray,
    hessian: np.ndarray | FactoredHessian,
    nearest: QuantizedWeight,
    *,
    block: int = 128,
    sweeps: int = 0,
) -> QuantizedWeight:
    """Return `nearest` with codes of less output error for the same scales and zero points.

    Compensation is greedy and may lose: a row that would be worse than rounded to nearest stays so.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32.
    hessian : numpy.ndarray or FactoredHessian
        ``(K, K)`` second moment of the inputs, ``X^T X`` up to a factor, symmetric. Inputs that are always zero (a zero
        on its diagonal) have their weights rounded to nearest. A :class:`FactoredHessian` serves several weights.
    nearest : QuantizedWeight
        The weight rounded to nearest; its scales, zero points and bits are kept.
    block : int
        Columns whose corrections are gathered before they reach the columns after them; it does not change the result.
    sweeps : int
        Rounds of coordinate descent afterwards: each code takes its best value while all others stay. One lowers the
        error by 1 to 3 % and doubles the time.

    Raises
    ------
    CheckpointError
        If the weight is not two-dimensional or not finite.
    CalibrationError
        If the Hessian is not finite.
    """
    factored = hessian if isinstance(hessian, FactoredHessian) else FactoredHessian(hessian)
    problem = _Problem(weight, factored, nearest)
    steps = _compensate(problem, block)
    for _ in range(sweeps):
        steps = _sweep(problem, steps, block)
    nearest_steps = problem.round(problem.weight)
    worse = problem.error(steps) > problem.error(nearest_steps)
    steps[worse] = nearest_steps[worse]
    return replace(nearest, codes=problem.codes(steps))


class FactoredHessian:
    """Second moment of a layer's inputs with its decomposition, which several weights share.

    Parameters
    ----------
    hessian : numpy.ndarray
        ``(K, K)`` ``X^T X`` up to a factor, symmetric.
    damping : float
        Share of the mean diagonal that is added to the diagonal.
    act_order : bool
        Columns of large inputs first, while there are many columns left to compensate with.

    Attributes
    ----------
    matrix : torch.Tensor
        ``(K, K)`` float64, its mean diagonal 1.

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
        self.matrix = torch.from_numpy(hessian / (hessian.diagonal().mean() or 1.0))
        self.damping, self.act_order = damping, act_order

    @cached_property
    def order(self) -> torch.Tensor:
        """``(K,)`` columns in the order in which they are rounded."""
        diagonal = self.matrix.diagonal()
        return torch.argsort(diagonal, descending=True, stable=True) if self.act_order else torch.arange(len(diagonal))

    @cached_property
    def factor(self) -> torch.Tensor:
        """``(K, K)`` spread of a column's error over the later ones, in that order; see :func:`_inverse_factor`."""
        return _inverse_factor(self.matrix[self.order][:, self.order], self.damping)

    @cached_property
    def matrix_float32(self) -> torch.Tensor:
        """``matrix`` in float32."""
        return self.matrix.float()


class _Problem:
    """Weight, Hessian and grid of a rounding as tensors; `steps` are ``code - zero_point`` as float32."""

    def __init__(self, weight: np.ndarray, hessian: FactoredHessian, grid: QuantizedWeight) -> None:
        weight = np.ascontiguousarray(weight, np.float32)
        if weight.ndim != 2 or weight.size == 0 or not np.isfinite(weight).all():
            raise CheckpointError(
                f"A weight of shape {weight.shape} cannot be rounded; expected two axes and finite values. "
                "Check the checkpoint."
            )
        rows, columns = weight.shape
        shapes = (tuple(hessian.matrix.shape), np.shape(grid.scale), np.shape(grid.zero_point))
        expected = ((columns, columns), (rows,), (rows,))
        if shapes != expected:
            raise ValueError(f"Hessian, scale and zero point have shapes {shapes}; expected {expected}.")
        self.weight, self.hessian = torch.from_numpy(weight), hessian
        self.scale = torch.from_numpy(np.asarray(grid.scale, np.float32))[:, None]
        self.zero = torch.from_numpy(np.asarray(grid.zero_point, np.float32))[:, None]
        self.low, self.high = -self.zero, np.float32(2**grid.bits - 1) - self.zero

    def round(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the steps nearest to a weight ``(N, K)``."""
        return (weight / self.scale).round_().clamp_(self.low, self.high)

    def round_column(self, column: torch.Tensor) -> torch.Tensor:
        """Return the steps nearest to one column ``(N,)``."""
        return torch.clamp((column / self.scale[:, 0]).round_(), self.low[:, 0], self.high[:, 0])

    def error(self, steps: torch.Tensor) -> torch.Tensor:
        """Return a number proportional to the output error of each row, ``(N,)`` float64."""
        difference = self.weight - steps * self.scale
        return (difference @ self.hessian.matrix_float32).mul_(difference).sum(1, dtype=torch.float64)

    def codes(self, steps: torch.Tensor) -> np.ndarray:
        """Return uint8 codes."""
        return (steps + self.zero).to(torch.uint8).numpy()


def _inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Return the upper triangular U, float32, with ``U^T U`` the inverse of the damped Hessian.

    Reversing rows and columns turns the lower Cholesky factor into an upper one, R, with ``H = R R^T``; then
    ``U = R^-1``: one decomposition, and the inverse is never formed.
    """
    diagonal = hessian.diagonal()
    while True:
        # an input that is always zero gets a diagonal of 1, and so nearest rounding
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


def _compensate(problem: _Problem, block: int) -> torch.Tensor:
    """Return steps: columns are rounded in the Hessian's order, each error spread over the columns after it."""
    order, factor = problem.hessian.order, problem.hessian.factor
    weight = problem.weight[:, order]
    steps = torch.empty_like(weight)
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
    unordered = torch.empty_like(steps)
    unordered[:, order] = steps
    return unordered


def _sweep(problem: _Problem, steps: torch.Tensor, block: int) -> torch.Tensor:
    """Return steps after one round of coordinate descent over all columns, the largest inputs first."""
    steps = steps.clone()
    scale = problem.scale[:, 0]
    diagonal = problem.hessian.matrix.diagonal()
    order = torch.argsort(diagonal, descending=True, stable=True)
    order = order[diagonal[order] > 0]
    hessian = problem.hessian.matrix_float32
    gradient = ((problem.weight - steps * problem.scale) @ hessian).T.contiguous()
    for chosen in order.split(block):
        inner = hessian[chosen][:, chosen]
        part, current = gradient[chosen], steps[:, chosen].T.contiguous()
        before = current.clone()
        for j in range(len(chosen)):
            # the error is a parabola in this code, with its minimum at gradient / curvature
            optimum = current[j] + part[j] / (inner[j, j] * scale)
            moved = torch.clamp(optimum.round_(), problem.low[:, 0], problem.high[:, 0])
            part.addr_(inner[j], (moved - current[j]) * scale, alpha=-1)
            current[j] = moved
        steps[:, chosen] = current.T
        gradient.addmm_(hessian[:, chosen], (current - before) * scale, alpha=-1)
    return steps
