"""Links between layers of a model along which parameters can change without changing its function."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NormLink:
    """A norm that one layer alone reads.

    Attributes
    ----------
    norm, layer : str
        Names of the norm and of the linear layer or convolution after it.
    padded : bool
        True if zeros replace norm outputs at some places (padding of windows or of a convolution): scales leave them
        zeros, offsets do not.
    """

    norm: str
    layer: str
    padded: bool


@dataclass(frozen=True)
class Rows:
    """Some output channels of a linear layer."""

    layer: str
    rows: slice


@dataclass(frozen=True)
class AttentionLink:
    """The layers of an attention.

    Attributes
    ----------
    name : str
        Of the attention.
    query, key, value : Rows
        Channels that make its operands.
    out : str
        The linear layer that reads its result.
    head_dim : int
        Channels of a head.
    tables : tuple of str
        Tables of relative positions, ``(L, head_dim)``, which all heads share.
    in_encoder : bool
        True if it belongs to the image encoder.
    """

    name: str
    query: Rows
    key: Rows
    value: Rows
    out: str
    head_dim: int
    tables: tuple[str, ...]
    in_encoder: bool


@dataclass(frozen=True)
class ReluLink:
    """Two linear layers with a ReLU between them."""

    first: str
    second: str


@dataclass(frozen=True)
class Links:
    """All links of a model.

    Attributes
    ----------
    norms : tuple of NormLink
        Within the blocks of the image encoder.
    neck : tuple of NormLink
        Behind them.
    attentions : tuple of AttentionLink
        In graph order.
    relus : tuple of ReluLink
        ReLU networks.
    """

    norms: tuple[NormLink, ...]
    neck: tuple[NormLink, ...]
    attentions: tuple[AttentionLink, ...]
    relus: tuple[ReluLink, ...]
