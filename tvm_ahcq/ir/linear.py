"""``ahcq.linear`` (float) and ``ahcq.grouped_linear`` (integer)."""

from __future__ import annotations

from tvm import relax

from .register import call, register, tensor_type


def _infer_linear(expr: relax.Call) -> relax.TensorType:
    """``x @ weight.T + bias``: (..., K), (N, K), (N,) -> (..., N)."""
    return tensor_type(expr.args[0], last=expr.args[1].ty.shape.values[0])


def _infer_grouped(expr: relax.Call) -> relax.TensorType:
    """Grouped-scale integer GEMM: (..., Kp) uint8 operands -> (..., N) float32."""
    return tensor_type(expr.args[0], last=expr.args[3].ty.shape.values[1], dtype="float32")


register("linear", ("x", "weight", "bias"), _infer_linear, required=3)
register(
    "grouped_linear", ("operands", "packed", "bounds", "multiplier", "correction", "bias"), _infer_grouped, required=6
)


def linear(
    x: relax.Expr, weight: relax.Expr, bias: relax.Expr, *, name: str, accumulate: str = "float32"
) -> relax.Call:
    """Float linear layer with the stable `name` of the module it comes from.

    Parameters
    ----------
    x, weight, bias : relax.Expr
        float32 ``(..., K)``, ``(N, K)`` and ``(N,)``.
    name : str
        Such as ``image_encoder.blocks.0.attn.qkv``.
    accumulate : str
        'float32', or 'float64' where quantizers follow: the result then does not depend on the order of additions.
    """
    return call("linear", x, weight, bias, name=name, accumulate=accumulate)


def grouped_linear(
    operands: relax.Expr,
    packed: relax.Expr,
    bounds: relax.Expr,
    multiplier: relax.Expr,
    correction: relax.Expr,
    bias: relax.Expr,
    *,
    name: str,
    layout: str,
    weight_bits: int = 8,
    operand_max: int = 255,
    exact_steps: int = 0,
) -> relax.Call:
    """Integer linear layer; semantics in :func:`tvm_ahcq.quantizers.core.reference.grouped_linear`.

    Parameters
    ----------
    operands : relax.Expr
        ``(..., Kp)`` uint8.
    packed : relax.Expr
        int8 weights in `layout` (see :func:`tvm_ahcq.runtime.weights.pack`).
    bounds : relax.Expr
        ``(G + 1,)`` int32: channels at which groups begin and end.
    multiplier, correction, bias : relax.Expr
        ``(G, N)`` float32, ``(G, N)`` int32, ``(N,)`` float32.
    weight_bits : int
        Bits of the codes that the weights come from: below 8, weights are at most ``2**weight_bits - 1`` in size.
    operand_max : int
        Greatest operand that the encoder gives.
    exact_steps : int
        Successive quadruples of channels whose products are proven to fit 16-bit sums
        (:func:`tvm_ahcq.quantizers.core.narrow_sums.exact_steps`); 0 if nothing is proven.
    """
    args = (operands, packed, bounds, multiplier, correction, bias)
    return call(
        "grouped_linear",
        *args,
        name=name,
        layout=layout,
        weight_bits=weight_bits,
        operand_max=operand_max,
        exact_steps=exact_steps,
    )
