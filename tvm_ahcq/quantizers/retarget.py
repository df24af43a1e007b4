"""The float weight that makes the most of quantized inputs: what rounding should aim at.

A layer reads quantized inputs x_q, but is to give what the float model's inputs x would. Of all weights W* the one of
least ``sum |W x - W* x_q|**2 + damping |W* - W|**2`` is a ridge regression (Hoerl and Kennard, 1970).
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import CalibrationError
from .gptq import DAMPING


def retarget_weight(weight: np.ndarray, hessian: np.ndarray, cross: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """``W + W (C - H) (H + damping mean(diag H))^-1``.

    Parameters
    ----------
    weight : numpy.ndarray
        ``(N, K)`` float32.
    hessian : numpy.ndarray
        ``(K, K)`` second moment of the quantized inputs, ``X_q^T X_q``.
    cross : numpy.ndarray
        ``(K, K)`` moment of float with quantized inputs, ``X^T X_q``, up to the same factor.
    damping : float
        How strongly W* stays near W, as a share of the Hessian's mean diagonal; positive. More for fewer images.

    Returns
    -------
    numpy.ndarray
        ``(N, K)`` float32; `weight` itself where the inputs agree, and in columns of inputs that are always zero.

    Raises
    ------
    CalibrationError
        If the moments are not finite.
    """
    weight = np.asarray(weight, np.float32)
    square = (weight.shape[1],) * 2
    if np.shape(hessian) != square or np.shape(cross) != square or not damping > 0:
        raise ValueError(
            f"Moments have shapes {np.shape(hessian)} and {np.shape(cross)}, damping is {damping}; expected {square} "
            "both, and a positive damping."
        )
    h, c = (torch.from_numpy(np.asarray(moment, np.float64)) for moment in (hessian, cross))
    if not (torch.isfinite(h).all() and torch.isfinite(c).all()):
        raise CalibrationError("The moments of a layer's inputs are not finite; check the checkpoint and the images.")
    damped = h + torch.eye(len(h), dtype=h.dtype) * (damping * (float(h.diagonal().mean()) or 1.0))
    change = torch.from_numpy(weight.astype(np.float64)) @ (c - h)
    solved = torch.cholesky_solve(change.T, torch.linalg.cholesky(damped))
    return (weight + solved.T.numpy()).astype(np.float32)
