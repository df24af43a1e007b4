"""The integer constants of a log-domain attention, from the quantizers of its four sites."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.reference import FRACTION_BITS, LogAttention, log_attention_scale

from .uniform import UniformParams

LOG2_E = float(np.log2(np.e))


def log_attention_constants(
    q: UniformParams,
    k: UniformParams,
    v: UniformParams,
    probs: QuantizerParams,
    *,
    scale: float,
    head_dim: int,
    rel_h: np.ndarray | None = None,
    rel_w: np.ndarray | None = None,
) -> tuple[LogAttention, np.ndarray | None, np.ndarray | None]:
    """Constants for :func:`.reference.log_attention`, and the relative positions as int8.

    Parameters
    ----------
    q, k, v, probs
        Quantizers of the sites.
    scale : float
        Factor of the attention on q.k (usually ``head_dim ** -0.5``); relative positions are not scaled.
    head_dim : int
        Channels of a head.
    rel_h, rel_w : numpy.ndarray, optional
        ``(2 h - 1, d)``, ``(2 w - 1, d)`` float32 tables; each gets one scale, ``max|.| / 127``.

    Returns
    -------
    constants : LogAttention
    rel_h, rel_w : numpy.ndarray or None
        int8 tables.
    """
    q_bound = max(q.zero_point, 2**q.bits - 1 - q.zero_point)
    k_bound = max(k.zero_point, 2**k.bits - 1 - k.zero_point)
    qk = (head_dim * q_bound * k_bound, q.scale * k.scale * scale * LOG2_E)
    rel: tuple[int, float, float] | None = None
    tables: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    if rel_h is not None and rel_w is not None:
        h_scale, w_scale = (float(max(np.abs(t).max(), 1e-8)) / 127 for t in (rel_h, rel_w))
        tables = np.rint(rel_h / h_scale).astype(np.int8), np.rint(rel_w / w_scale).astype(np.int8)
        rel = (head_dim * q_bound * 127, q.scale * h_scale * LOG2_E, q.scale * w_scale * LOG2_E)
    (book,) = probs.codebooks()
    if book.table[0] != 0 or book.offset != 0 or not (book.thresholds > 0).all():
        raise QuantTableError(
            f"A {probs.kind} quantizer of attention probabilities must give 0 the code 0; this one begins at "
            f"{book.table[0] * book.scale + book.offset:g}."
        )
    constants = LogAttention(
        q_zero=q.zero_point,
        k_zero=k.zero_point,
        v_zero=v.zero_point,
        log_thresholds=_minus_log2(book.thresholds),
        table=book.table.astype(np.uint8),
        out_scale=np.float32(book.scale) * np.float32(v.scale),
        **log_attention_scale(qk, rel),
    )
    return constants, *tables


def _minus_log2(thresholds: np.ndarray) -> np.ndarray:
    """``floor(-log2(t) * 2**FRACTION_BITS)`` int32; thresholds that no probability reaches stay out of reach.

    Those of probabilities below about 2**-32, which count for nothing, are moved up to it: they then fit in 16 bits.
    """
    exact = np.floor(-np.log2(np.minimum(thresholds.astype(np.float64), 2.0)) * 2**FRACTION_BITS)
    return np.minimum(exact, 2**15 - 2).astype(np.int32)
