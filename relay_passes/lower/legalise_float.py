"""Phase 8: float operators of the decoder that have kernels of ours."""

from __future__ import annotations

from tvm import relax

from tvm_ahcq import kernels
from tvm_ahcq.relay_passes.shapes import dims, product, rows_of

from .legalise import ANY, Legaliser, legalises


@legalises("relax.nn.gelu")
def _gelu(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    matrix, rows = rows_of(call.args[0])
    columns = int(dims(call.args[0])[-1])
    y = legaliser.call(kernels.gelu, (ANY, columns), [matrix], [rows, columns], "float32")
    return relax.op.reshape(y, dims(call.args[0]))


@legalises("relax.ahcq.pixel_product")
def _pixel_product(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    weight, x = call.args
    batch, masks, channels = dims(weight)
    options = (product([batch]), int(masks), int(dims(x)[1]), int(channels), str(call.attrs["activation"]))
    return legaliser.call(kernels.pixel_product, options, [weight, x], [batch, masks, dims(x)[1]], "float32")
