"""HLUQ with the published straight-through gradients (QUANTIZERS 3.1), for comparison.

In the log region the two ways by which `scale_log` acts cancel exactly, so it learns from values saturated at the top
alone; what high-effort reconstruction learns with is :func:`.lsq.table_lsq`.
"""

from __future__ import annotations

import torch

from .hluq import MASKS, HluqScales


def fake_quant_published(
    x: torch.Tensor, scale_log: torch.Tensor, scale_uni: torch.Tensor, scales: HluqScales, mask: str = "fixed"
) -> torch.Tensor:
    """The published fake quantizer, differentiable in `x`, `scale_log` and `scale_uni`.

    Parameters
    ----------
    x : torch.Tensor
        Any shape, float32.
    scale_log, scale_uni : torch.Tensor
        One element each: the learned scales.
    scales : HluqScales
        Bits, least value and grid rate; its own two scales are not read.
    mask : {"fixed", "ref"}
        As in :func:`.hluq_published.encode_published`.
    """
    if mask not in MASKS:
        raise ValueError(f"mask is {mask!r}; expected 'fixed' or 'ref'.")
    levels, top = scales.log_levels, 2**scales.bits - scales.log_levels - 1
    v = x - scales.fp_min
    in_log = v <= scale_log
    exponent = _round(-torch.log2(v.clamp_min(1e-20) / scale_log))
    log_value = scale_log * torch.exp2(-exponent.clamp(0, levels - 1))
    log_value = torch.where(exponent >= levels, 0, log_value)
    if mask == "ref":
        # the zero code's test also meets raw values of the uniform region, which then round from 0
        v = torch.where(~in_log & (v >= levels), 0, v)
    uniform_value = scale_log + scale_uni * _round((v - scale_log) / scale_uni).clamp(0, top)
    return torch.where(in_log, log_value, uniform_value) + scales.fp_min


def _round(x: torch.Tensor) -> torch.Tensor:
    """Half to even; the gradient passes straight through."""
    return x + (x.round() - x).detach()
