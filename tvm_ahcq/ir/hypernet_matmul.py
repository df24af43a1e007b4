"""``ahcq.hypernet_matmul``: masks from the pixels of the upscaled embedding, channels last."""

from __future__ import annotations

from tvm import relax

from .register import call, register


def _infer_product(expr: relax.Call) -> relax.TensorType:
    """(B, M, C), (B, P, C) -> (B, M, P)."""
    weight, x = (arg.ty.shape.values for arg in expr.args)
    return relax.TensorType([weight[0], weight[1], x[1]], "float32")


register("hypernet_matmul", ("weight", "x"), _infer_product, required=2)


def hypernet_matmul(weight: relax.Expr, x: relax.Expr, *, activation: str) -> relax.Call:
    """``weight @ activation(x).T`` of each batch entry; `weight` ``(B, M, C)``, `x` ``(B, P, C)``, `activation`
    "identity" or "gelu". Inserted when kernels are chosen, so that only compiled code computes it."""
    return call("hypernet_matmul", weight, x, activation=activation)
