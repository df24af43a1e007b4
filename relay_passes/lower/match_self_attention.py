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
        On codes ``(sequences * heads, tokens, d)``, or ``(sequences, heads, tokens, d)``.
    heads : int
        Heads.
    pooled : (int, int) or None
        Height and width of a sequence whose queries are the maxima of 2 x 2 tokens.
    """

    source: relax.Expr
    encoders: list[relax.Call]
    attention: relax.Call
    heads: int
    pooled: tuple[int, int] | None

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
    if permuted is None:
        return None
    attention = chains.producer(chains.skip(permuted.args[0], *RESHAPES), "relax.ahcq.log_attention")
    if attention is None or not is_static(result, permuted.args[0], attention.args[0]):
        return None
    parts = [part for part in (_part(chains, operand) for operand in attention.args[:3]) if part is not None]
    encoders = [part.encoder for part in parts if bool(part.encoder.attrs["identity"])]
    if len(encoders) < 3 or len({int(encoder.attrs["bits"]) for encoder in encoders}) > 1:
        return None
    qkv = _split_heads(chains, parts)
    pooled, tokens = parts[0].pooled, sizes(attention.args[1])[-2]
    if qkv is None or not _merges_heads(permuted, result, attention, qkv[1]):
        return None
    if pooled is not None and prod(pooled) != tokens:
        return None
    return SelfAttention(qkv[0], encoders, attention, qkv[1], pooled)


@dataclass(frozen=True)
class _Part:
    """Codes of part `place` of the tensor `whole`; `permuted` if heads were put in front of tokens after the split,
    `pooled` the height and width of tokens whose maxima were taken."""

    encoder: relax.Call
    whole: relax.Expr
    place: int
    permuted: bool
    pooled: tuple[int, int] | None


def _part(chains: UseChains, operand: relax.Expr) -> _Part | None:
    """Return what an operand of an attention is of a tensor that is split; heads are permuted in front of tokens after
    encoding, before it, or before the split."""
    before, codes = _skip_permutation(chains, operand)
    encoder = chains.producer(codes, "relax.ahcq.encode_affine")
    if encoder is None:
        return None
    after, values = _skip_permutation(chains, encoder.args[0])
    pooled, values = _skip_pooling(chains, values)
    item = chains.defs.of(values)
    if not isinstance(item, relax.TupleGetItem) or (before and after) or (pooled and int(item.index) > 0):
        return None
    return _Part(encoder, item.tuple_value, int(item.index), before or after, pooled)


def _skip_pooling(chains: UseChains, expr: relax.Expr) -> tuple[tuple[int, int] | None, relax.Expr]:
    """Follow a maximum over 2 x 2 tokens, channels last; return the height and width of the tokens if there was one."""
    back = chains.producer(expr, "relax.permute_dims")
    pooling = None if back is None else chains.producer(back.args[0], "relax.nn.max_pool2d")
    forth = None if pooling is None else chains.producer(pooling.args[0], "relax.permute_dims")
    if back is None or pooling is None or forth is None or (_axes(back), _axes(forth)) != ([0, 2, 3, 1], [0, 3, 1, 2]):
        return None, expr
    attrs = pooling.attrs
    window = [
        [int(side) for side in sides] for sides in (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation)
    ]
    _, height, width, _ = sizes(forth.args[0])
    if window != [[2, 2], [2, 2], [0, 0, 0, 0], [1, 1]] or height % 2 or width % 2:
        return None, expr
    return (height, width), chains.skip(forth.args[0], *RESHAPES)


def _skip_permutation(chains: UseChains, expr: relax.Expr) -> tuple[bool, relax.Expr]:
    """Follow reshapes and one exchange of the second and third of four axes; return whether there was one."""
    source = chains.skip(expr, *RESHAPES)
    permuted = chains.producer(source, "relax.permute_dims")
    if permuted is None or _axes(permuted) != [0, 2, 1, 3]:
        return False, source
    return True, chains.skip(permuted.args[0], *RESHAPES)


def _split_heads(chains: UseChains, parts: list[_Part]) -> tuple[relax.Expr, int] | None:
    """Return the tensor that queries, keys and values are split from, and the number of heads.

    It is ``(sequences, tokens, 3, heads, d)``, or a permutation of that with 3 in front and heads before tokens.
    """
    whole, permuted = parts[0].whole, parts[0].permuted
    split = chains.defs.call(whole, "relax.split")
    if split is None or chains.uses[whole] != 3 or [part.place for part in parts] != [0, 1, 2]:
        return None
    if any(not part.whole.same_as(whole) or part.permuted != permuted for part in parts):
        return None
    stacked = split.args[0]
    if int(split.attrs.axis) == 0 and not permuted:
        permutation = chains.producer(chains.input_of(stacked, "relax.reshape"), "relax.permute_dims")
        if permutation is None or _axes(permutation) != [2, 0, 3, 1, 4]:
            return None
        stacked = permutation.args[0]
    elif int(split.attrs.axis) != 2 or len(dims(stacked)) != 5:
        return None
    _, _, three, heads, _ = dims(stacked)
    if int(three) != 3 or (int(split.attrs.axis) == 2 and not permuted and int(heads) > 1):
        return None
    return chains.skip(stacked, *RESHAPES), int(heads)


def _axes(permuted: relax.Call) -> list[int]:
    """Axes of a ``permute_dims``."""
    return [int(axis) for axis in permuted.attrs.axes]


def _merges_heads(permuted: relax.Call, result: relax.Expr, attention: relax.Call, heads: int) -> bool:
    """True if ``(sequences * heads, tokens, d)``, in three or four axes, becomes ``(sequences, tokens, heads * d)`` by
    way of `permuted`."""
    *batch, tokens, d = sizes(attention.args[0])
    shape = sizes(permuted.args[0])
    count = len(shape) - 3  # axes of a sequence's tokens
    if count < 1 or shape[:2] != [prod(batch) // heads, heads] or shape[-1] != d or prod(shape[2:-1]) != tokens:
        return False
    return _axes(permuted) == [0, *range(2, 2 + count), 1, 2 + count] and sizes(result)[-1] == heads * d
