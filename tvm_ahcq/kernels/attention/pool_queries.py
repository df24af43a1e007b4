"""Maximum pooling of the queries of an attention, on codes: the code of a maximum is the maximum of the codes."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer, PrimFunc


def pool_queries(batch: int, h: int, w: int, d: int) -> PrimFunc:
    """Kernel of the greatest code of each 2 x 2 queries, channel by channel.

    Its arguments are, in order, the queries, keys and values of an attention, uint8 ``(3, B, h * w, d)``, of which the
    queries are read; and the output, uint8 ``(B, h / 2 * w / 2, d)``.

    Parameters
    ----------
    batch : int
        Sequences times heads.
    h, w : int
        Height and width of a sequence, both even.
    d : int
        Channels of a head.
    """
    rows, columns = h // 2, w // 2

    def code(operands: Buffer, b: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
        """Code of the query in line `y`, place `x`."""
        return operands[0, b, y * w + x, c]

    @T.prim_func(s_tir=True)
    def main(operands_handle: T.handle, out_handle: T.handle):
        T.func_attr({"global_symbol": "ahcq_pool_queries", "tirx.noalias": True, "tirx.is_scheduled": True})
        operands = T.match_buffer(operands_handle, (3, batch, h * w, d), "uint8", align=1)
        out = T.match_buffer(out_handle, (batch, rows * columns, d), "uint8", align=1)
        for line in T.parallel(batch * rows):
            b = line // rows
            y = line % rows
            for x in range(columns):
                for c in T.vectorized(d):
                    out[b, y * columns + x, c] = T.max(
                        T.max(code(operands, b, 2 * y, 2 * x, c), code(operands, b, 2 * y, 2 * x + 1, c)),
                        T.max(code(operands, b, 2 * y + 1, 2 * x, c), code(operands, b, 2 * y + 1, 2 * x + 1, c)),
                    )

    return main
