"""``ahcq.quantize`` (a quantization site in a float graph) and the two integer encoders that replace it."""

from __future__ import annotations

from tvm import relax

from .register import call, register, tensor_type


def _infer_quantize(expr: relax.Call) -> relax.TensorType:
    """Values rounded to the levels of the site's quantizer; same type as the input."""
    return tensor_type(expr.args[0])


def _infer_affine(expr: relax.Call) -> relax.TensorType:
    """Codes of an affine quantizer, channels reordered by `index`: (..., K) float32 -> (..., Kp) uint8."""
    return tensor_type(expr.args[0], last=expr.args[1].ty.shape.values[0], dtype="uint8")


def _infer_intervals(expr: relax.Call) -> relax.TensorType:
    """Operands by interval: (..., K) float32 -> (..., K) uint8."""
    return tensor_type(expr.args[0], dtype="uint8")


register("quantize", ("x",), _infer_quantize, required=1)
register("encode_affine", ("x", "index", "bounds", "scale", "zero_point"), _infer_affine, required=5)
register("encode_intervals", ("x", "thresholds", "operands"), _infer_intervals, required=3)


def quantize(x: relax.Expr, *, site: str, kind: str, bits: int, activation: str = "identity") -> relax.Call:
    """Mark the quantization site `site`.

    Parameters
    ----------
    x : relax.Expr
        float32; of a site behind a non-linearity, the value before it.
    site, kind, bits
        Stable name; 'uniform', 'cag' or 'hluq'; width of a code.
    activation : str
        'identity', 'gelu' or 'relu': what is applied to `x` before it is quantized.
    """
    return call("quantize", x, site=site, kind=kind, bits=int(bits), activation=activation)


def encode_affine(
    x: relax.Expr,
    index: relax.Expr,
    bounds: relax.Expr,
    scale: relax.Expr,
    zero_point: relax.Expr,
    *,
    site: str,
    bits: int,
    identity: bool,
) -> relax.Call:
    """Integer codes; semantics in :func:`tvm_ahcq.quantizers.core.reference.encode_affine`.

    Parameters
    ----------
    x, index, bounds, scale, zero_point : relax.Expr
        ``(..., K)`` float32, ``(Kp,)`` int32, ``(G + 1,)`` int32 (channels at which groups begin and end), ``(G,)``
        float32, ``(G,)`` int32.
    identity : bool
        Promise that ``index`` is ``0, 1, ..., K - 1``, so that kernels need not gather.
    """
    return call(
        "encode_affine", x, index, bounds, scale, zero_point, site=site, bits=int(bits), identity=bool(identity)
    )


def encode_intervals(x: relax.Expr, thresholds: relax.Expr, operands: relax.Expr, *, site: str) -> relax.Call:
    """Table operands by interval; semantics in :func:`tvm_ahcq.quantizers.core.reference.encode_intervals`."""
    return call("encode_intervals", x, thresholds, operands, site=site)
