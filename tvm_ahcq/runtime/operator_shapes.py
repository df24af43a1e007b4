"""Shapes of offloaded operators, by which tuning records are found: plain numbers, kept in the offload report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, order=True)
class LinearShape:
    """Tuning key of a linear layer: its best tile depends on these; how channels divide among groups hardly matters.

    Attributes
    ----------
    rows : int
        Of the layer.
    outputs, channels : int
        Multiples of Dim; channels without the padding of each group.
    words : tuple of int
        Groups whose sums share a word, for each word of a result.
    encoded : bool
        True if sums become codes for the next layer on the accelerator.
    group_sizes : tuple of int
        Channels of each group with padding; not compared.
    code_halves, weight_halves : int
        2 where codes or weights have more than 4 bits.
    """

    rows: int
    outputs: int
    channels: int
    words: tuple[int, ...]
    encoded: bool
    group_sizes: tuple[int, ...] = field(compare=False)
    code_halves: int = 1
    weight_halves: int = 1

    def __str__(self) -> str:
        kind = "linear to codes" if self.encoded else "linear"
        halves = (("codes", self.code_halves), ("weights", self.weight_halves))
        wide = "".join(f", {name} in halves" for name, count in halves if count > 1)
        return f"{kind} {self.rows} x {self.channels} -> {self.outputs}, {sum(self.words)} groups{wide}"


@dataclass(frozen=True, order=True)
class AttentionShape:
    """Tuning key of an attention: its best tile depends on these.

    Attributes
    ----------
    heads, queries, keys, channels : int
        Sizes, all pictures (windows) together.
    sides : tuple of int
        Height and width of the picture where there are relative positions, else empty.
    """

    heads: int
    queries: int
    keys: int
    channels: int
    sides: tuple[int, ...]

    def __str__(self) -> str:
        picture = f", picture of {self.sides[0]} x {self.sides[1]}" if self.sides else ""
        return f"attention {self.heads} x {self.queries} x {self.keys} x {self.channels}{picture}"


Shape = LinearShape | AttentionShape


def shape_from_dict(stored: Mapping[str, Any]) -> Shape:
    """Return a shape from its fields as JSON keeps them.

    Raises
    ------
    TypeError
        A field is missing, or unknown.
    AttributeError
        `stored` is no mapping.
    """
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return AttentionShape(**fields) if "heads" in fields else LinearShape(**fields)
