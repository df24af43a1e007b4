"""Pattern of self-attention: one linear layer, split into heads, encoders, attention, and heads merged."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tvm import relax

from tvm_ahcq.relay_passes.shapes import dims, is_static, sizes

from .use_chains import RESHAPES, UseChains


@dataclass(frozen=True)
class SelfAttention:
    """A matched self-attention.

    Attributes
    ----------
    source : relax.Expr
        Output of the linear layer, ``3 * heads * d`` channels.
    encoders : list of relax.Call
        Encoders of queries, keys and values.
    attention : relax.Call
        On codes ``(sequences * heads, tokens, d)``.
    heads : int
        Heads.
    """

    source: relax.Expr
    encoders: list[relax.Call]
    attention: relax.Call
    heads: int

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return int(self.encoders[0].attrs["bits"])

    def encoder_args(self, place: int) -> list[relax.Expr]:
        """Argument `place` of each encoder."""
        return [encoder.args[place] for encoder in self.encoders]


def match_self_attention(chains: UseChains, result: relax.Expr, call: relax.Call) -> SelfAttention | None:
    """Match a reshape `call`, bound to `result`, that merges the heads of a self-attention of constant shape.

    Parameters
    ----------
    chains : UseChains
        Of the function.
    result : relax.Expr
        Variable that `call` is bound to.
    call : relax.Call
        A reshape.
    """
    permuted = chains.producer(call.args[0], "relax.permute_dims")
    split = None if permuted is None else chains.producer(permuted.args[0], "relax.reshape")
    attention = None if split is None else chains.producer(split.args[0], "relax.ahcq.log_attention")
    if permuted is None or split is None or attention is None:
        return None
    if not is_static(result, split.args[0], attention.args[0]):
        return None
    calls = (chains.producer(arg, "relax.ahcq.encode_affine") for arg in attention.args[:3])
    encoders = [encoder for encoder in calls if encoder is not None and bool(encoder.attrs["identity"])]
    if len(encoders) < 3 or len({int(encoder.attrs["bits"]) for encoder in encoders}) > 1:
        return None
    qkv = _split_heads(chains, [encoder.args[0] for encoder in encoders])
    if qkv is None or not _merges_heads(permuted, result, attention, qkv[1]):
        return None
    return SelfAttention(qkv[0], encoders, attention, qkv[1])


def _split_heads(chains: UseChains, operands: list[relax.Expr]) -> tuple[relax.Expr, int] | None:
    """Return the tensor that queries, keys and values are split from, and the number of heads."""
    tuples = []
    for place, operand in enumerate(operands):
        item = chains.defs.of(chains.skip(operand, *RESHAPES))
        if not isinstance(item, relax.TupleGetItem) or int(item.index) != place:
            return None
        tuples.append(item.tuple_value)
    split = chains.defs.call(tuples[0], "relax.split")
    if split is None or any(not other.same_as(tuples[0]) for other in tuples) or chains.uses[tuples[0]] != 3:
        return None
    permuted = chains.producer(chains.input_of(split.args[0], "relax.reshape"), "relax.permute_dims")
    if permuted is None or [int(a) for a in permuted.attrs.axes] != [2, 0, 3, 1, 4] or int(split.attrs.axis) != 0:
        return None
    _, _, three, heads, _ = dims(permuted.args[0])
    return (chains.skip(permuted.args[0], *RESHAPES), int(heads)) if int(three) == 3 else None


def _merges_heads(permuted: relax.Call, result: relax.Expr, attention: relax.Call, heads: int) -> bool:
    """True if ``(sequences * heads, tokens, d)`` becomes ``(sequences, tokens, heads * d)`` by way of `permuted`."""
    batch, tokens, d = sizes(attention.args[0])
    shape = sizes(permuted.args[0])
    count = len(shape) - 3  # axes of a sequence's tokens
    if count < 1 or shape[:2] != [batch // heads, heads] or shape[-1] != d or prod(shape[2:-1]) != tokens:
        return False
    axes = [int(axis) for axis in permuted.attrs.axes]
    return axes == [0, *range(2, 2 + count), 1, 2 + count] and sizes(result)[-1] == heads * d
