"""ACNR, the mathematics: condition a weight by lifting its small singular values; see docs/quantizers.md#acnr.

The published loop repeats the decomposition in every iteration. Its singular vectors never change, so one
decomposition in float64 and a recursion on the singular values give the same weight, for any number of iterations.
:mod:`tvm_ahcq.calibrate.condition` runs it on a model with the published strength; :mod:`.round_layer` chooses a
strength for each layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tvm_ahcq.errors import CheckpointError
from tvm_ahcq.quantizers.core.params import check_samples

STRENGTH = 0.003
"""Published lambda: pull of small singular values towards the mean of all."""

PENALTY = 0.001
"""Published beta: damping by the input error along a singular vector."""

PROTECTED_ENERGY = 0.8
"""Share of the squared singular values, the largest first, that stays unchanged."""

MIN_CONDITION = 100.0
"""Weights with a smaller condition number stay unchanged."""


@dataclass(frozen=True, eq=False)
class ConditionedWeight:
    """A weight after conditioning.

    Attributes
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32.
    cond_before, cond_after : float
        Largest over smallest singular value; values that are zero within rounding do not count.
    iterations : int
        Requested iterations; a well-conditioned weight is unchanged for any number.
    """

    weight: np.ndarray
    cond_before: float
    cond_after: float
    iterations: int


def input_error_moment(difference: np.ndarray) -> np.ndarray:
    """Return ``D^T D / n``, ``(K, K)`` float64, for rows of `difference` ``(..., K)``: float minus quantized input.

    Moments of several batches with as many rows each may be averaged.

    Raises
    ------
    CalibrationError
        If there are no rows, or some are not finite.
    """
    rows = check_samples(difference, "weight's ACNR").reshape(-1, np.shape(difference)[-1]).astype(np.float64)
    return rows.T @ rows / len(rows)


def condition_number(weight: np.ndarray) -> float:
    """Return the condition number of a weight ``(N, K)`` as :attr:`Conditioner.cond_before`, without its vectors.

    It takes a fraction of the time of the decomposition, which a well-conditioned weight does not need.

    Raises
    ------
    CheckpointError
        If the weight is not two-dimensional, empty, or not finite.
    """
    singular = torch.linalg.svdvals(torch.from_numpy(_checked(weight).astype(np.float64))).numpy()
    return _condition(singular[: _rank(singular, weight.shape)])


def _checked(weight: np.ndarray) -> np.ndarray:
    """Return the weight as float32."""
    weight = np.asarray(weight, np.float32)
    if weight.ndim != 2 or weight.size == 0 or not np.isfinite(weight).all():
        raise CheckpointError(
            f"ACNR was given a weight of shape {weight.shape}; expected two axes and finite values. "
            "Check the checkpoint."
        )
    return weight


def _rank(singular: np.ndarray, shape: tuple[int, ...]) -> int:
    """Return the number of singular values that are not zero within rounding; they are in descending order."""
    return int((singular > singular[0] * max(shape) * np.finfo(np.float64).eps).sum())


def _condition(ranged: np.ndarray) -> float:
    """Return the condition number of singular values that are not zero; 1 if there are none."""
    return float(ranged.max() / ranged.min()) if ranged.size else 1.0


class Conditioner:
    """Singular value decomposition of a weight, which gives the conditioned weight for any number of iterations.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32, outputs first.
    moment : numpy.ndarray, optional
        ``(K, K)`` :func:`input_error_moment` of the layer's input; without it all energies are 0.
    strength, penalty : float
        Lambda and beta of the recursion.
    doubled_energy : bool
        The published code's fault: energies are twice the mean of the paper's formula.

    Attributes
    ----------
    singular : numpy.ndarray
        ``(r,)`` float64 singular values, descending, ``r = min(N, K)``.
    energy : numpy.ndarray
        ``(r,)`` float64 error energy along each right singular vector.
    cond_before : float
        Condition number.

    Raises
    ------
    CheckpointError
        If the weight is not two-dimensional, empty, or not finite.
    """

    def __init__(
        self,
        weight: np.ndarray,
        moment: np.ndarray | None = None,
        *,
        strength: float = STRENGTH,
        penalty: float = PENALTY,
        doubled_energy: bool = False,
    ) -> None:
        weight = _checked(weight)
        if moment is not None and (np.shape(moment) != (weight.shape[1],) * 2 or not np.isfinite(moment).all()):
            raise ValueError(f"The moment has shape {np.shape(moment)}; expected {(weight.shape[1],) * 2}, all finite.")
        self._weight, self._strength, self._penalty = weight, strength, penalty
        parts = torch.linalg.svd(torch.from_numpy(weight.astype(np.float64)), full_matrices=False)
        self._left, self.singular, self.directions = (part.numpy() for part in parts)
        self.energy = np.zeros_like(self.singular)
        if moment is not None:
            quadratic = np.einsum("rk,rk->r", self.directions @ np.asarray(moment, np.float64), self.directions)
            self.energy = np.maximum(quadratic, 0) * (2 if doubled_energy else 1)
        # the vectors of a null space are arbitrary: nothing is lifted there, and columns of zeros stay zero
        self._rank = _rank(self.singular, weight.shape)
        self.cond_before = _condition(self.singular[: self._rank])

    @property
    def applies(self) -> bool:
        """True if the condition number is at least ``MIN_CONDITION``."""
        return self.cond_before >= MIN_CONDITION

    def step(self, singular: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the singular values after one more iteration, and the rank of the last protected one.

        Parameters
        ----------
        singular : numpy.ndarray
            ``(r,)`` float64 in the order of the singular vectors, which need not be descending.
        """
        order = np.argsort(-singular, kind="stable")
        reached = np.cumsum(singular[order] ** 2)
        cut = int(np.argmax(reached > PROTECTED_ENERGY * reached[-1]))
        pull = 2 * self._strength
        lifted = (singular + pull * singular.mean()) / (1 + pull + 2 * self._penalty * self.energy)
        lifted = np.maximum(singular, lifted)
        lifted[order[: cut + 1]] = singular[order[: cut + 1]]
        lifted[self._rank :] = singular[self._rank :]
        return lifted, cut

    def spectrum(self, iterations: int) -> np.ndarray:
        """Return ``(r,)`` float64 singular values after the iterations, in the order of the singular vectors."""
        if isinstance(iterations, bool) or int(iterations) != iterations or iterations < 0:
            raise ValueError(f"iterations is {iterations!r}; expected a whole number, 0 or more.")
        singular = self.singular
        for _ in range(iterations if self.applies else 0):
            singular, _ = self.step(singular)
        return singular

    def weight(self, iterations: int, *, stale_log: bool = False) -> ConditionedWeight:
        """Return the conditioned weight.

        Parameters
        ----------
        iterations : int
            Number of iterations; 0 gives the weight itself.
        stale_log : bool
            The published code's fault: `cond_after` is that of the weight before the last iteration.
        """
        spectrum = self.spectrum(iterations)
        logged = self.spectrum(iterations - 1) if stale_log and iterations else spectrum
        weight = self._weight
        if iterations and self.applies:
            weight = ((self._left * spectrum) @ self.directions).astype(np.float32)
        return ConditionedWeight(weight, self.cond_before, _condition(logged[: self._rank]), iterations)
