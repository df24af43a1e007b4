"""Sizes of the layers of an image encoder, for tuning without a bundle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearSize:
    """A linear layer, or a convolution as a matrix product.

    Attributes
    ----------
    rows : int
        Tokens of an image, padding of windows included.
    outputs, inputs : int
        Channels; of a convolution, inputs are those of its whole window.
    grouped : bool
        True if its input is quantized in groups of channels, False if with one scale.
    """

    rows: int
    outputs: int
    inputs: int
    grouped: bool


@dataclass(frozen=True)
class AttentionSize:
    """An attention within square windows.

    Attributes
    ----------
    windows, heads : int
        Windows of an image, and heads of each.
    side : int
        Tokens along a side of a window.
    channels : int
        Channels of a head.
    """

    windows: int
    heads: int
    side: int
    channels: int


@dataclass(frozen=True)
class EncoderSizes:
    """Layers of an image encoder that are matrix products on codes, each size once.

    Attributes
    ----------
    linear : tuple of LinearSize
        Where one layer occurs with several numbers of rows, that of most tokens outside windows comes last.
    attention : tuple of AttentionSize
        Empty where accelerators cannot be tuned for the encoder.
    """

    linear: tuple[LinearSize, ...]
    attention: tuple[AttentionSize, ...] = ()
