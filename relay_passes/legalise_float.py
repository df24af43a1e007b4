"""Phase 8: float operators of the decoder that have kernels of ours."""

from __future__ import annotations

from tvm import relax

from tvm_ahcq import topi

from .legalise import ANY, Legaliser, _dims, _product, _rows, legalises


@legalises("relax.nn.gelu")
def _gelu(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    matrix, rows = _rows(call.args[0])
    columns = int(_dims(call.args[0])[-1])
    y = legaliser.call(topi.gelu, (ANY, columns), [matrix], [rows, columns], "float32")
    return relax.op.reshape(y, _dims(call.args[0]))


@legalises("relax.ahcq.pixel_product")
def _pixel_product(legaliser: Legaliser, call: relax.Call) -> relax.Expr:
    weight, x = call.args
    batch, masks, channels = _dims(weight)
    options = (_product([batch]), int(masks), int(_dims(x)[1]), int(channels), str(call.attrs["activation"]))
    return legaliser.call(topi.pixel_product, options, [weight, x], [batch, masks, _dims(x)[1]], "float32")
