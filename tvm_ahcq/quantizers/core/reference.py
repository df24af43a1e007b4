"""The integer semantics of every quantized operator, defined once, in numpy.

Torch simulation, host kernels, functional simulator and RTL are each tested against these functions, bit for bit. They
favour clarity over speed. See docs/quantizers.md.

An *operand* is the small integer that the matrix unit multiplies: the unsigned code itself for affine (uniform, CAG)
activations, whose zero point is subtracted through a correction term, and the table entry for table (HLUQ, LNQ)
activations. Where a result leaves the integers, the float32 arithmetic is fixed as well: every multiply-add is fused
(one rounding), in the order written here, so that executors agree in every bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")
"""Type of functions that use only operators common to numpy arrays and torch tensors."""

FRACTION_BITS = 10
"""Base-2 logarithms (attention logits, minus log-probabilities) are integers in units of 2**-10."""

EXP_BITS = 18
"""``exp2_fixed`` returns 2**-x in units of 2**-18."""

MAX_KEYS = (2**31 - 1) >> EXP_BITS
"""Keys of an attention whose row of ``exp2_fixed`` sums within int32 for all logits: 8191."""

MAX_KEYS_ROW_RELATIVE = (2**31 - 1) // 255**2
"""Keys of an attention with row-relative codes, whose sums of 8-bit operands times 8-bit values fit int32: 33025."""

_EXP_C1, _EXP_C2, _EXP_C3 = 181298, 60597, 10371
"""Least-squares cubic of 2**-x on [0, 1), exact at both ends, in units of 2**-18; relative error 1.5e-4."""


def fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the fused multiply-add ``a * b + c`` of float32 arrays with a single rounding (broadcasts).

    The product is exact in float64; the sum is rounded to odd there, which makes the final rounding to float32 the
    correct one (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    product = np.multiply(a, b, dtype=np.float64)
    c = np.asarray(c, np.float64)
    total = np.asarray(product + c)
    virtual = total - product
    error = (product - (total - virtual)) + (c - virtual)
    even = (total.view(np.int64) & 1) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    total = np.where((error != 0) & even, np.nextafter(total, towards), total)
    return total.astype(np.float32)


def encode_uniform(x: np.ndarray, scale: float | np.ndarray, zero_point: int | np.ndarray, bits: int) -> np.ndarray:
    """Return codes ``clip(rint(x / scale) + zero_point, 0, 2**bits - 1)`` as uint8.

    The division is float32 and correctly rounded, ``rint`` rounds half to even (docs/quantizers.md#uniform). NaN is not
    allowed.
    """
    steps = np.rint(np.asarray(x, np.float32) / np.asarray(scale, np.float32))
    top = np.float32(2**bits - 1)
    return np.clip(steps + np.asarray(zero_point, np.float32), np.float32(0), top).astype(np.uint8)


def encode_affine(
    x: np.ndarray, index: np.ndarray, group_sizes: Sequence[int], scale: np.ndarray, zero_point: np.ndarray, bits: int
) -> np.ndarray:
    """Return codes of grouped channels, reordered so that groups are contiguous.

    Parameters
    ----------
    x : numpy.ndarray
        ``(..., K)`` float32.
    index : numpy.ndarray
        ``(Kp,)`` int32; output channel ``j`` takes input channel ``index[j]``, or is padding (code 0) where -1.
    group_sizes : sequence of int
        Output channels of each group, padding included; they sum to ``Kp``.
    scale, zero_point : numpy.ndarray
        ``(G,)`` float32 and int32.
    bits : int
        Bits of a code.

    Returns
    -------
    numpy.ndarray
        ``(..., Kp)`` uint8.
    """
    columns, start = [], 0
    for size, s, z in zip(group_sizes, scale, zero_point, strict=True):
        chosen = np.asarray(index[start : start + size])
        codes = encode_uniform(np.take(x, np.maximum(chosen, 0), axis=-1), s, int(z), bits)
        columns.append(np.where(chosen >= 0, codes, np.uint8(0)))
        start += size
    return np.concatenate(columns, axis=-1)


def encode_intervals(x: np.ndarray, thresholds: np.ndarray, operands: np.ndarray) -> np.ndarray:
    """Return operands by interval: ``operands[number of thresholds that x exceeds]``.

    Parameters
    ----------
    x : numpy.ndarray
        float32, any shape.
    thresholds : numpy.ndarray
        ``(n,)`` float32, ascending; x equal to a threshold does not exceed it.
    operands : numpy.ndarray
        ``(n + 1,)`` uint8.
    """
    return operands[np.searchsorted(thresholds, np.asarray(x, np.float32), side="left")]


def im2col(codes: np.ndarray, kernel: int, zero_point: int) -> np.ndarray:
    """Return patches of a stride-1, same-padded convolution: ``(B, H, W, C)`` uint8 -> ``(B, H, W, kernel**2 * C)``.

    Padding has the code `zero_point`, whose value is exactly 0. Tap-major: column ``(dy * kernel + dx) * C + c``.
    """
    margin = kernel // 2
    widths = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = np.pad(codes, widths, constant_values=zero_point)
    height, width = codes.shape[1:3]
    taps = [padded[:, dy : dy + height, dx : dx + width] for dy in range(kernel) for dx in range(kernel)]
    return np.concatenate(taps, axis=-1)


def grouped_accumulators(operands: np.ndarray, weight: np.ndarray, group_sizes: Sequence[int]) -> np.ndarray:
    """Return accumulators of a grouped-scale GEMM: ``acc[g, m, o] = sum(operands[m, c] * weight[o, c], c in g)``.

    Parameters
    ----------
    operands : numpy.ndarray
        ``(M, Kp)`` uint8.
    weight : numpy.ndarray
        ``(N, Kp)`` int8, zero point already subtracted, 0 in padding columns.
    group_sizes : sequence of int
        Sum to ``Kp``.

    Returns
    -------
    numpy.ndarray
        ``(G, M, N)`` int32 (the sums always fit).
    """
    bounds = np.concatenate([[0], np.cumsum(group_sizes)])
    parts = []
    for low, high in pairwise(bounds):
        # float64 products of small integers are exact, and fast through BLAS
        exact = operands[:, low:high].astype(np.float64) @ weight[:, low:high].T.astype(np.float64)
        parts.append(exact.astype(np.int32))
    return np.stack(parts)


def grouped_linear(
    operands: np.ndarray,
    weight: np.ndarray,
    group_sizes: Sequence[int],
    multiplier: np.ndarray,
    correction: np.ndarray,
    bias: np.ndarray,
) -> np.ndarray:
    """Return ``y = bias``, then for each group ``y = fma(float32(acc + correction), multiplier, y)``.

    Parameters
    ----------
    operands, weight, group_sizes
        As for :func:`grouped_accumulators`.
    multiplier : numpy.ndarray
        ``(G, N)`` float32: activation scale of the group times weight scale of the output.
    correction : numpy.ndarray
        ``(G, N)`` int32: ``-zero_point_g * sum over c in g of weight[o, c]``; 0 for table operands.
    bias : numpy.ndarray
        ``(N,)`` float32.

    Returns
    -------
    numpy.ndarray
        ``(M, N)`` float32.
    """
    y = np.broadcast_to(np.asarray(bias, np.float32), (operands.shape[0], weight.shape[0]))
    accumulators = grouped_accumulators(operands, weight, group_sizes)
    for acc, scale, offset in zip(accumulators, multiplier, correction, strict=True):
        y = fma32((acc + offset).astype(np.float32), np.asarray(scale, np.float32), y)
    return y


@dataclass(frozen=True)
class AttentionConstants:
    """Constants of a log-domain integer attention.

    Logits are base-2, in units of ``2**-FRACTION_BITS``:
    ``t = (qk * qk_multiplier + rel_h * rel_h_multiplier + rel_w * rel_w_multiplier + half) >> shift``, where `qk`,
    `rel_h` and `rel_w` are integer dot products, first shifted right by `qk_shift` or `rel_shift`, with rounding.

    Attributes
    ----------
    q_zero, k_zero, v_zero : int
        Zero points of the query, key and value codes.
    qk_shift, rel_shift, qk_multiplier, rel_h_multiplier, rel_w_multiplier, shift : int
        Fixed-point scale of the logits, chosen by :func:`attention_logit_scale` so that nothing leaves int32.
    log_thresholds : numpy.ndarray
        ``(n,)`` int32, descending: ``floor(-log2(T_c) * 2**FRACTION_BITS)`` for the thresholds ``T_1 < ... < T_n``.
    table : numpy.ndarray
        ``(n + 1,)`` uint8: operand of each probability code, ``table[0] = 0``.
    out_scale : numpy.float32
        Scale of a probability operand times scale of a value code; with row-relative codes, of a value code alone.
    row_relative : bool
        False: codes are of probabilities. True: codes are of probabilities divided by the greatest of their row, that
        is of ``exp(logit - row maximum)``, and outputs are divided by the row's sum of operands.
    """

    q_zero: int
    k_zero: int
    v_zero: int
    qk_shift: int
    rel_shift: int
    qk_multiplier: int
    rel_h_multiplier: int
    rel_w_multiplier: int
    shift: int
    log_thresholds: np.ndarray
    table: np.ndarray
    out_scale: np.float32
    row_relative: bool = False

    def scalars(self) -> np.ndarray:
        """Return the integers above in their order, ``(9,)`` int32, the argument of kernels."""
        return np.array([getattr(self, name) for name in _scalar_names()], np.int32)

    @classmethod
    def of(
        cls,
        scalars: np.ndarray,
        log_thresholds: np.ndarray,
        table: np.ndarray,
        out_scale: float,
        row_relative: bool = False,
    ) -> AttentionConstants:
        """Return the constants with these :meth:`scalars`."""
        values: dict[str, Any] = dict(zip(_scalar_names(), map(int, scalars), strict=True))
        values |= {"log_thresholds": log_thresholds, "table": table, "row_relative": row_relative}
        return cls(**values, out_scale=np.float32(out_scale))


def _scalar_names() -> list[str]:
    return [field.name for field in fields(AttentionConstants)[:9]]


class LogitScale(TypedDict):
    """Fixed-point scale of attention logits: the fields of these names of :class:`AttentionConstants`."""

    qk_shift: int
    rel_shift: int
    qk_multiplier: int
    rel_h_multiplier: int
    rel_w_multiplier: int
    shift: int


def attention_logit_scale(qk: tuple[int, float], rel: tuple[int, float, float] | None = None) -> LogitScale:
    """Return fixed-point multipliers and shifts for the logits.

    Parameters
    ----------
    qk
        (bound on the absolute value of the integer dot product q.k, base-2 logit for each unit of it).
    rel
        The same for the relative positions: (bound, height logit a unit, width logit a unit), if there are any.
    """
    rel_bound, rel_h, rel_w = rel or (0, 0.0, 0.0)
    qk_shift = max(0, int(qk[0]).bit_length() - 15)
    rel_shift = max(0, int(rel_bound).bit_length() - 15)
    largest = qk[0] * abs(qk[1]) + rel_bound * (abs(rel_h) + abs(rel_w))
    headroom = int(np.floor(30 - np.log2(max(largest, 2.0**-9)))) - FRACTION_BITS - 1
    shift = int(np.clip(headroom, 1, 20))
    unit = 2.0 ** (FRACTION_BITS + shift)
    return {
        "qk_shift": qk_shift,
        "rel_shift": rel_shift,
        "qk_multiplier": round(qk[1] * unit * 2**qk_shift),
        "rel_h_multiplier": round(rel_h * unit * 2**rel_shift),
        "rel_w_multiplier": round(rel_w * unit * 2**rel_shift),
        "shift": shift,
    }


def rounding_shift(x: Array, shift: int) -> Array:
    """Return the arithmetic right shift with half rounded up: ``floor(x / 2**shift + 1/2)``."""
    return x if shift == 0 else (x + (1 << (shift - 1))) >> shift


def exp2_fixed(x: Array) -> Array:
    """Return ``2**-x``, int32 in units of ``2**-EXP_BITS``, for ``x >= 0`` in units of ``2**-FRACTION_BITS``."""
    fraction = x & ((1 << FRACTION_BITS) - 1)
    whole = (x >> FRACTION_BITS).clip(max=31)
    inner = (_EXP_C3 * fraction) >> FRACTION_BITS
    inner = ((_EXP_C2 - inner) * fraction) >> FRACTION_BITS
    inner = ((_EXP_C1 - inner) * fraction) >> FRACTION_BITS
    return ((1 << EXP_BITS) - inner) >> whole


def log2_fixed(total: np.ndarray) -> np.ndarray:
    """Return ``floor(log2(total / 2**EXP_BITS) * 2**FRACTION_BITS)``, int32, for ``total >= 2**EXP_BITS``.

    The fraction's bits come from repeated squaring.
    """
    total = np.asarray(total, np.int64)
    whole = np.frexp(total.astype(np.float64))[1].astype(np.int64) - 1
    mantissa = total << (30 - whole)
    fraction = np.zeros_like(total)
    for _ in range(FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> 30
        carry = mantissa >> 31
        mantissa >>= carry
        fraction = (fraction << 1) | carry
    return (((whole - EXP_BITS) << FRACTION_BITS) | fraction).astype(np.int32)


def _relative_logits(
    q: np.ndarray, rel_h: np.ndarray, rel_w: np.ndarray, c: AttentionConstants, places: np.ndarray | None
) -> np.ndarray:
    """Return the relative-position part of the logits before the final shift, ``(Nq, Nk)``.

    The zero point is already subtracted from `q` ``(Nq, d)``.
    """
    height, width = (len(rel_h) + 1) // 2, (len(rel_w) + 1) // 2
    y, x = np.divmod(np.arange(height * width) if places is None else places, width)
    by_row = rounding_shift(q @ rel_h.T.astype(np.int64), c.rel_shift) * c.rel_h_multiplier
    by_column = rounding_shift(q @ rel_w.T.astype(np.int64), c.rel_shift) * c.rel_w_multiplier
    at_row = np.take_along_axis(by_row, y[:, None] - np.arange(height) + height - 1, 1)
    at_column = np.take_along_axis(by_column, x[:, None] - np.arange(width) + width - 1, 1)
    return (at_row[:, :, None] + at_column[:, None, :]).reshape(len(q), -1)


def attention_operands(
    q: np.ndarray,
    k: np.ndarray,
    c: AttentionConstants,
    rel_h: np.ndarray | None = None,
    rel_w: np.ndarray | None = None,
    places: np.ndarray | None = None,
) -> np.ndarray:
    """Return probability operands of one head: ``(Nq, d)`` and ``(Nk, d)`` uint8 codes -> ``(Nq, Nk)`` uint8.

    With ``u = -log2(p)`` in fixed point, the code is the number of thresholds with ``u <= L_c``: neither a division nor
    a probability is ever formed (docs/quantizers.md#attention-constants). With row-relative codes, ``u`` is the row's
    maximum less the logit, and there are no exponentials either.
    """
    queries, keys = q.astype(np.int64) - c.q_zero, k.astype(np.int64) - c.k_zero
    logits = rounding_shift(queries @ keys.T, c.qk_shift) * c.qk_multiplier
    if rel_h is not None and rel_w is not None:
        logits = logits + _relative_logits(queries, rel_h, rel_w, c, places)
    logits = rounding_shift(logits, c.shift)
    below = logits.max(1, keepdims=True) - logits
    minus_log2 = below if c.row_relative else below + log2_fixed(exp2_fixed(below).sum(1, keepdims=True))
    # the thresholds descend, so the number of them >= u is a search among their negatives
    return c.table[np.searchsorted(-c.log_thresholds, -minus_log2, side="right")]


def log_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    c: AttentionConstants,
    rel_h: np.ndarray | None = None,
    rel_w: np.ndarray | None = None,
    places: np.ndarray | None = None,
) -> np.ndarray:
    """Return the log-domain integer attention of all heads.

    Parameters
    ----------
    q, k, v : numpy.ndarray
        ``(B, Nq, d)``, ``(B, Nk, d)``, ``(B, Nk, dv)`` uint8 codes; B is batch times heads.
    c : AttentionConstants
        Constants of the site.
    rel_h, rel_w : numpy.ndarray, optional
        ``(2 h - 1, d)`` and ``(2 w - 1, d)`` int8 decomposed relative positions, ``Nq = Nk = h * w``: query (y, x) and
        key (y', x') read rows ``y - y' + h - 1`` and ``x - x' + w - 1``. The *unscaled* query multiplies them.
    places : numpy.ndarray, optional
        ``(Nq,)`` places of the queries among the keys, of an attention with relative positions for some of them.

    Returns
    -------
    numpy.ndarray
        ``(B, Nq, dv)`` float32: ``float32(sum over keys of operand * (v - v_zero)) * scale``, where `scale` is
        `out_scale`, with row-relative codes ``out_scale / float32(sum over keys of operand)``.
    """
    heads = []
    for query, key, value in zip(q, k, v, strict=True):
        operands = attention_operands(query, key, c, rel_h, rel_w, places)
        exact = operands.astype(np.float64) @ (value.astype(np.float64) - c.v_zero)
        scale = np.float32(c.out_scale)
        if c.row_relative:
            scale = scale / operands.sum(1, keepdims=True, dtype=np.int32).astype(np.float32)
        heads.append(exact.astype(np.int32).astype(np.float32) * scale)
    return np.stack(heads)
