"""``ahcq.attention`` (float) and ``ahcq.log_attention`` (integer)."""

from __future__ import annotations

from tvm import relax

from .register import call, register, tensor_type


def _infer_attention(expr: relax.Call) -> relax.TensorType:
    """Softmax attention of (..., Nq, d), (..., Nk, d), (..., Nk, dv), with relative positions or not ->
    (..., Nq, dv)."""
    return tensor_type(expr.args[0], last=expr.args[2].ty.shape.values[-1])


def _infer_log_attention(expr: relax.Call) -> relax.TensorType:
    """Log-domain integer attention of uint8 codes -> float32."""
    return tensor_type(expr.args[0], last=expr.args[2].ty.shape.values[-1], dtype="float32")


register("attention", ("q", "k", "v", "rel_h", "rel_w"), _infer_attention, required=3)
register(
    "log_attention",
    ("q", "k", "v", "constants", "log_thresholds", "table", "out_scale", "rel_h", "rel_w"),
    _infer_log_attention,
    required=7,
)


def attention(
    q: relax.Expr,
    k: relax.Expr,
    v: relax.Expr,
    rel_h: relax.Expr | None = None,
    rel_w: relax.Expr | None = None,
    *,
    name: str,
    scale: float,
    kind: str = "",
    bits: int = 0,
) -> relax.Call:
    """Float attention ``softmax(scale q k^T + relative positions) v``.

    Parameters
    ----------
    q, k, v : relax.Expr
        ``(..., Nq, d)``, ``(..., Nk, d)``, ``(..., Nk, dv)`` float32.
    rel_h, rel_w : relax.Expr, optional
        Decomposed relative positions ``(2 h - 1, d)``, ``(2 w - 1, d)``; the unscaled query multiplies them.
    name : str
        Stable name; the probabilities are the site ``<name>.probs``.
    kind, bits : str, int
        Of the probabilities' quantizer; 0 bits leave them in float.
    """
    return call("attention", q, k, v, rel_h, rel_w, name=name, scale=float(scale), kind=kind, bits=int(bits))


def log_attention(
    q: relax.Expr,
    k: relax.Expr,
    v: relax.Expr,
    constants: relax.Expr,
    log_thresholds: relax.Expr,
    table: relax.Expr,
    out_scale: relax.Expr,
    rel_h: relax.Expr | None = None,
    rel_w: relax.Expr | None = None,
    *,
    name: str,
    bits: int = 8,
    row_relative: bool = False,
) -> relax.Call:
    """Integer attention; semantics in :func:`tvm_ahcq.quantizers.core.reference.log_attention`.

    Parameters
    ----------
    q, k, v : relax.Expr
        ``(..., Nq, d)``, ``(..., Nk, d)``, ``(..., Nk, dv)`` uint8 codes.
    constants : relax.Expr
        ``(9,)`` int32: q_zero, k_zero, v_zero, qk_shift, rel_shift, qk_multiplier, rel_h_multiplier, rel_w_multiplier,
        shift.
    log_thresholds, table, out_scale : relax.Expr
        ``(n,)`` int32, ``(n + 1,)`` uint8, ``(1,)`` float32.
    rel_h, rel_w : relax.Expr, optional
        ``(2 h - 1, d)``, ``(2 w - 1, d)`` int8.
    name : str
        Stable name.
    bits : int
        Codes and zero points of `q`, `k` and `v` are below ``2**bits``.
    row_relative : bool
        The thresholds are of the row's maximum less the logit, and outputs are divided by the row's sum of operands.
    """
    args = (q, k, v, constants, log_thresholds, table, out_scale, rel_h, rel_w)
    return call("log_attention", *args, name=name, bits=int(bits), row_relative=int(row_relative))
