"""Error-compensated rounding of a weight (GPTQ, Frantar et al., arXiv 2210.17323).

Columns get their codes one after another; the error of each is passed on to the columns that are still free, in the
proportions in which the layer's inputs make up for one another.
"""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 128
"""Columns whose errors are passed on to the rest together, in one matrix product."""


def round_gptq(
    weight: np.ndarray,
    second_moment: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray,
    bits: int,
    damping: float = 0.01,
) -> np.ndarray:
    """Codes that keep ``trace((W - Q) H (W - Q).T)`` small.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32.
    second_moment : numpy.ndarray
        ``(K, K)`` H, the mean of ``x x.T`` over the layer's inputs, symmetric.
    scale, zero_point : numpy.ndarray
        ``(N,)`` of each output channel.
    bits : int
        Code width.
    damping : float
        Added to the diagonal, in units of its mean, so that few samples do not let errors run wild.

    Returns
    -------
    numpy.ndarray
        ``(N, K)`` uint8. A row for which rounding to the nearest does better on H keeps that.
    """
    h = torch.from_numpy(np.asarray(second_moment, np.float64))
    diagonal = h.diagonal()
    mean = float(diagonal.mean())
    if not mean > 0:  # nothing ever passes: every rounding is as good
        return _nearest(weight, scale, zero_point, bits)
    order = torch.argsort(diagonal, descending=True)
    damped = h[order][:, order] + damping * mean * torch.eye(len(h), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    w = torch.from_numpy(np.asarray(weight, np.float32))[:, order].T.contiguous()
    codes = _compensate(w, factor, torch.from_numpy(np.asarray(scale, np.float32)),
                        torch.from_numpy(np.asarray(zero_point, np.float32)), bits)  # fmt: skip
    found = np.empty(weight.shape, np.uint8)
    found[:, order.numpy()] = codes.T.numpy()
    return _keep_better(weight, h.numpy(), found, scale, zero_point, bits)


def _compensate(w: torch.Tensor, factor: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int):
    """Codes of the ``(K, N)`` transposed weight `w`, which is used up; `factor` is upper triangular, ``(K, K)``."""
    codes, top = torch.empty(w.shape, dtype=torch.uint8), 2**bits - 1
    for first in range(0, len(w), BLOCK):
        last = min(first + BLOCK, len(w))
        block, errors = w[first:last], torch.empty(last - first, w.shape[1])
        own = factor[first:last, first:last]
        for j in range(last - first):
            code = (torch.round(block[j] / scale) + zero).clamp_(0, top)
            codes[first + j] = code.to(torch.uint8)
            errors[j] = (block[j] - (code - zero) * scale) / own[j, j]
            block[j + 1 :].addr_(own[j, j + 1 :], errors[j], alpha=-1)
        w[last:].addmm_(factor[first:last, last:].T, errors, alpha=-1)
    return codes


def _nearest(weight: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, bits: int) -> np.ndarray:
    steps = np.rint(np.asarray(weight, np.float32) / np.asarray(scale, np.float32)[:, None])
    return np.clip(steps + np.asarray(zero_point, np.float32)[:, None], 0, 2**bits - 1).astype(np.uint8)


def _keep_better(
    weight: np.ndarray, h: np.ndarray, codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, bits: int
) -> np.ndarray:
    """`codes`, but the nearest ones in rows where these do better."""
    nearest = _nearest(weight, scale, zero_point, bits)

    def loss(candidate: np.ndarray) -> np.ndarray:
        steps = candidate.astype(np.float64) - np.asarray(zero_point, np.float64)[:, None]
        error = weight - steps * np.asarray(scale, np.float64)[:, None]
        return np.einsum("nk,nk->n", error @ h, error)

    return np.where((loss(codes) <= loss(nearest))[:, None], codes, nearest)
