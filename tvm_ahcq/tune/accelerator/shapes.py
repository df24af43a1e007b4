"""Operators of image encoders on an accelerator, for tuning without a bundle."""

from __future__ import annotations

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.linear.stage import pack_fields
from tvm_ahcq.models.registry import encoders
from tvm_ahcq.models.shapes import AttentionSize, LinearSize
from tvm_ahcq.runtime.operator_shapes import AttentionShape, LinearShape, Shape

_GROUPS = 4
"""Of channels that are quantized in groups; taken to be of one size, which hardly matters."""

_BOUND = 20
"""Sum of a channel group for each of its channels, as of bell-shaped weights: how many sums share a word."""


def tile_encoders() -> tuple[str, ...]:
    """Return the names of the encoders whose attentions are known."""
    return tuple(name for name, sizes in encoders().items() if sizes.attention)


def encoder_shapes(name: str, config: Config) -> list[Shape]:
    """Return the operators of an encoder at 4 bits, each shape once.

    Parameters
    ----------
    name : str
        One of :func:`tile_encoders`.
    config : Config
        Accelerator.
    """
    sizes = encoders()[name]
    return [*(_linear(config, each) for each in sizes.linear), *map(_attention, sizes.attention)]


def _attention(size: AttentionSize) -> AttentionShape:
    tokens = size.side**2
    return AttentionShape(size.windows * size.heads, tokens, tokens, size.channels, (size.side, size.side))


def _linear(config: Config, layer: LinearSize) -> LinearShape:
    """Return the shape of a layer whose sums are the result."""
    groups = _GROUPS if layer.grouped else 1
    size = layer.inputs // groups
    fields = pack_fields([_BOUND * size] * groups)
    words = tuple(sum(field.word == word for field in fields) for word in range(fields[-1].word + 1))
    padded = (size + -size % config.dim,) * groups
    outputs, inputs = (number + -number % config.dim for number in (layer.outputs, layer.inputs))
    return LinearShape(layer.rows, outputs, inputs, words, False, padded)
