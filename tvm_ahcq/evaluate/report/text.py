"""Text of figures, quantizers and plot legends in the report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from html import escape

from tvm_ahcq.quantizers.core.params import QuantizerParams

from .svg import number

NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""


def percent(value: float) -> str:
    """A share in percent."""
    return "∞" if value == math.inf else f"{number(100 * value)}{NBSP}%"


def decibels(value: float) -> str:
    """A ratio in decibel; in words where it has no number."""
    if value == math.inf:
        return "exact"
    return "signal lost" if value == -math.inf else f"{value:.1f}{NBSP}dB".replace("-", "−")


def quantizer(params: QuantizerParams) -> str:
    """Kind and bits, as ``4-bit CAG``."""
    name = params.kind if params.kind == "uniform" else params.kind.upper()
    return f"{params.bits}-bit {name}"


def condition(value: float | None) -> str:
    """A condition number."""
    return "not a matrix" if value is None else "rank-deficient" if value == math.inf else number(value)


def breakable(name: str) -> str:
    """A dotted name as HTML that breaks over lines at its joints."""
    return re.sub(r"([._])", r"\1<wbr>", escape(name))


def key(entries: Iterable[tuple[str, str, str]]) -> str:
    """Key of a plot: (colour class, shape classes, meaning) of each mark."""
    items = (
        f'<li><i class="{colour} {shape}" aria-hidden="true"></i>{escape(text)}</li>' for colour, shape, text in entries
    )
    return f'<ul class="key">{"".join(items)}</ul>'
