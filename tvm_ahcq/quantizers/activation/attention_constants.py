"""The integer constants of a log-domain attention, from the quantizers of its four sites.

The derivation is in docs/quantizers.md#attention-constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.core.codebook import Codebook
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.reference import FRACTION_BITS, AttentionConstants, attention_logit_scale

from .row_relative import RowRelativeParams
from .uniform import UniformParams

LOG2_E = float(np.log2(np.e))


@dataclass(frozen=True)
class AttentionQuantizers:
    """Quantizers of an attention's sites.

    Attributes
    ----------
    q, k, v : UniformParams
        Of queries, keys and values.
    probs : QuantizerParams
        Of the softmax output; its code 0 has the value 0. With :class:`.row_relative.RowRelativeParams`, of the softmax
        output divided by its row's maximum.
    """

    q: UniformParams
    k: UniformParams
    v: UniformParams
    probs: QuantizerParams


def attention_constants(
    quantizers: AttentionQuantizers,
    *,
    scale: float,
    head_dim: int,
    rel_h: np.ndarray | None = None,
    rel_w: np.ndarray | None = None,
) -> tuple[AttentionConstants, np.ndarray | None, np.ndarray | None]:
    """Return the constants of :func:`.reference.log_attention`, and the relative positions as int8.

    Parameters
    ----------
    quantizers : AttentionQuantizers
        Of the four sites.
    scale, head_dim : float, int
        Factor of q.k (usually ``head_dim ** -0.5``; relative positions are not scaled), and channels of a head.
    rel_h, rel_w : numpy.ndarray, optional
        ``(2 h - 1, d)``, ``(2 w - 1, d)`` float32 tables; each gets one scale, ``max|.| / 127``.

    Returns
    -------
    constants : AttentionConstants
    rel_h, rel_w : numpy.ndarray or None
        int8 tables.

    Raises
    ------
    QuantTableError
        If the quantizer of the probabilities does not give 0 the code 0.
    """
    q, k, v = quantizers.q, quantizers.k, quantizers.v
    qk = (head_dim * _max_step(q) * _max_step(k), q.scale * k.scale * scale * LOG2_E)
    rel, rows, columns = None, None, None
    if rel_h is not None and rel_w is not None:
        (rows, h_scale), (columns, w_scale) = _int8_table(rel_h), _int8_table(rel_w)
        rel = (head_dim * _max_step(q) * 127, q.scale * h_scale * LOG2_E, q.scale * w_scale * LOG2_E)
    codebook, row_relative = _probability_codebook(quantizers.probs), isinstance(quantizers.probs, RowRelativeParams)
    constants = AttentionConstants(
        q_zero=q.zero_point,
        k_zero=k.zero_point,
        v_zero=v.zero_point,
        log_thresholds=_minus_log2(codebook.thresholds),
        table=codebook.table.astype(np.uint8),
        out_scale=np.float32(1 if row_relative else codebook.scale) * np.float32(v.scale),
        row_relative=row_relative,
        **attention_logit_scale(qk, rel),
    )
    return constants, rows, columns


def _max_step(params: UniformParams) -> int:
    """Return the largest absolute value of ``code - zero_point``."""
    return max(params.zero_point, 2**params.bits - 1 - params.zero_point)


def _int8_table(table: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a table as int8 and its scale."""
    scale = float(max(np.abs(table).max(), 1e-8)) / 127
    return np.rint(table / scale).astype(np.int8), scale


def _probability_codebook(probs: QuantizerParams) -> Codebook:
    """Return the only codebook of a quantizer that gives 0 the code 0; QuantTableError otherwise."""
    (codebook,) = probs.codebooks()
    if codebook.table[0] != 0 or codebook.offset != 0 or not (codebook.thresholds > 0).all():
        raise QuantTableError(
            f"A {probs.kind} quantizer of attention probabilities must give 0 the code 0; this one begins at "
            f"{codebook.table[0] * codebook.scale + codebook.offset:g}."
        )
    return codebook


def _minus_log2(thresholds: np.ndarray) -> np.ndarray:
    """Return ``floor(-log2(t) * 2**FRACTION_BITS)`` as int32; thresholds above 1 stay out of reach.

    Thresholds below about 2**-32, which change no result, are moved up to it so that they fit in 16 bits.
    """
    exact = np.floor(-np.log2(np.minimum(thresholds.astype(np.float64), 2.0)) * 2**FRACTION_BITS)
    return np.minimum(exact, 2**15 - 2).astype(np.int32)
