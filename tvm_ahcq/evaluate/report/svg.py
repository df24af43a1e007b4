"""Scales, ticks and the few SVG elements that the report's plots are made of. Colours are left to the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

import numpy as np


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels along one axis.

    Attributes
    ----------
    low, high : float
        Values at the ends.
    start, end : float
        Pixels at the ends.
    bend : callable
        Monotone function under which the axis is linear.
    """

    low: float
    high: float
    start: float
    end: float
    bend: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """Pixel of a value; values beyond an end are drawn at it."""
        first, last = self.bend(self.low), self.bend(self.high)
        at = (self.bend(min(max(value, self.low), self.high)) - first) / (last - first)
        return self.start + at * (self.end - self.start)


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values between two ends."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    for factor in (1, 2, 2.5, 5, 10):
        if (high - low) / (step * factor) <= count:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    return [0.0 if abs(k * step) < step / 2 else k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Powers of ten between two positive ends, thinned to about `count`; if they are few, 1-2-5 steps."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 2:
        between = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
        return [value for value in between if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    step = max(1, math.ceil((last - first) / count))
    return [10.0**exponent for exponent in range(first, last + 1, step)]


def symlog(unit: float) -> Callable[[float], float]:
    """``asinh(x / unit)``: linear within a few units of 0, logarithmic beyond."""
    return lambda value: math.asinh(value / unit)


def number(value: float) -> str:
    """A value in three digits, as people write it."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "?"
    size = abs(value)
    if 1e-3 <= size < 1e5:
        text = f"{value:.3g}" if size < 1000 else f"{value:,.0f}".replace(",", "\u2009")
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "−")


def svg(width: float, height: float, body: Iterable[str], label: str) -> str:
    """A picture that shrinks with the page down to the width where its text can still be read."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(body)}</svg>'
    )


def text(x: float, y: float, content: str, classes: str = "", anchor: str = "middle") -> str:
    """A label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    """A straight line."""
    return f'<path class="{classes}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, classes: str, title: str = "") -> str:
    """A bar, with what a pointer that rests on it is told."""
    told = f"<title>{escape(title)}</title>" if title else ""
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" class="{classes}"'
    return f"{shape}>{told}</rect>" if told else f"{shape}/>"


def mark(x: float, y: float, shape: str, classes: str, title: str) -> str:
    """A data point: ``circle``, ``square``, ``diamond`` or ``ring``."""
    told = f"<title>{escape(title)}</title>"
    if shape in ("circle", "ring"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" class="{classes} {shape}">{told}</circle>'
    reach = 4.6 if shape == "diamond" else 3.3
    corners = {"diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)), "square": ((-1, -1), (1, -1), (1, 1), (-1, 1))}[shape]
    points = " ".join(f"{x + reach * dx:.1f},{y + reach * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{classes}">{told}</polygon>'


def link(target: str, content: str) -> str:
    """`content` that leads to another part of the page."""
    return f'<a href="#{escape(target, quote=True)}">{content}</a>'


def segments(x: Iterable[float], y1: Iterable[float], y2: Iterable[float], classes: str) -> str:
    """Many vertical lines as one path."""
    rows = np.round(np.column_stack([list(x), list(y1), list(y2)]), 1)
    return f'<path class="{classes}" d="{"".join(f"M{a:g} {b:g}V{c:g}" for a, b, c in rows)}"/>'
