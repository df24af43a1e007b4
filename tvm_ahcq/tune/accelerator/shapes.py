"""What an accelerator gets of SAM's image encoders, for tuning without a bundle of them."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.linear.stage import pack_fields
from tvm_ahcq.codegen.lower.tiles import AttentionShape, LinearShape, Shape

_GROUPS = 4
"""Of channels that are quantized in groups; taken to be of one size, which hardly matters."""

_GRID, _WINDOW = 64, 14
"""Tokens along a side of the image embedding, 1024 / 16, and of a window."""

_BOUND = 20
"""Sum of a channel group for each of its channels, as of bell-shaped weights: how many sums share a word."""

_NECK = 256


@dataclass(frozen=True)
class _Encoder:
    """Channels and heads of a ViT."""

    width: int
    heads: int


_MODELS = {"vit_b": _Encoder(768, 12), "vit_l": _Encoder(1024, 16), "vit_h": _Encoder(1280, 16)}

TILE_ENCODERS = tuple(_MODELS)
"""Names of the encoders."""


def encoder_shapes(name: str, config: Config) -> list[Shape]:
    """Operators of an encoder at 1024 x 1024 and 4 bits, each shape once.

    Parameters
    ----------
    name : str
        One of :data:`TILE_ENCODERS`.
    config : Config
        Accelerator.
    """
    model = _MODELS[name]
    width, windows, tokens = model.width, (-(-_GRID // _WINDOW)) ** 2, _GRID**2
    found: list[Shape] = []
    for rows in (windows * _WINDOW**2, tokens):
        found += [_linear(config, rows, outputs, width, _GROUPS) for outputs in (3 * width, width)]
    found.append(_linear(config, tokens, 4 * width, width, _GROUPS))
    found += [_linear(config, tokens, width, 4 * width, 1), _linear(config, tokens, _NECK, width, 1)]
    found.append(_linear(config, tokens, _NECK, 9 * _NECK, 1))
    channels = width // model.heads
    found.append(AttentionShape(windows * model.heads, _WINDOW**2, _WINDOW**2, channels, (_WINDOW, _WINDOW)))
    return [*found, AttentionShape(model.heads, tokens, tokens, channels, (_GRID, _GRID))]


def _linear(config: Config, rows: int, outputs: int, inputs: int, groups: int) -> LinearShape:
    """A layer whose sums are the result."""
    fields = pack_fields([_BOUND * (inputs // groups)] * groups)
    words = tuple(sum(field.word == word for field in fields) for word in range(fields[-1].word + 1))
    size = inputs // groups
    padded = (size + -size % config.dim,) * groups
    outputs, inputs = (number + -number % config.dim for number in (outputs, inputs))
    return LinearShape(rows, outputs, inputs, words, False, padded)
