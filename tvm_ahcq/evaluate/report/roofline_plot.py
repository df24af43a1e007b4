"""Offloaded operators under the roofs of the accelerator: its array, and its memory. A self-contained SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm_ahcq.runtime.device_profile import OperatorCycles

from .svg import Scale, line, log_ticks, mark, number, svg, text

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 70.0, 640.0, 50.0, 400.0, 860.0, 450.0

_STYLE = """<style>
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #222; } .title { font-size: 14px; font-weight: 600; } .grid { stroke: #e4e4e4; }
.roof { stroke: #222; stroke-width: 1.6; fill: none; }
.linear { fill: #2a6fb0; fill-opacity: .75; } .attention { fill: #c9752d; fill-opacity: .75; }
.mlp { fill: #3a8a52; fill-opacity: .75; }
</style>"""

_KINDS = (("linear", "circle"), ("attention", "diamond"), ("mlp", "square"))


def roofline_plot(title: str, operators: Sequence[OperatorCycles], peak: float, bandwidth: float) -> str:
    """Multiply-adds a cycle of each operator over its multiply-adds a byte.

    Parameters
    ----------
    title : str
        What was measured.
    operators : sequence of OperatorCycles
        At least one.
    peak : float
        Multiply-adds that the array does in a cycle.
    bandwidth : float
        Bytes of a cycle, in each direction. Bytes of an operator are those of its busier direction.
    """
    xs = [each.intensity for each in operators] + [peak / bandwidth]
    ys = [each.rate for each in operators]
    x = Scale(_power(min(xs) / 1.5, math.floor), _power(max(xs) * 1.5, math.ceil), _LEFT, _RIGHT, math.log2)
    low = min(_power(min(ys) / 1.5, math.floor), peak / 8)
    y = Scale(low, peak * 1.5, _BOTTOM, _TOP, math.log2)
    body = [_STYLE, text(10, 20, title, "title", "start"), *_axes(x, y), *_roofs(x, y, peak, bandwidth)]
    shapes = dict(_KINDS)
    for each in operators:
        told = f"{each.name}: {number(each.rate)} MAC a cycle, array busy {each.busy:.0%}, {number(each.cycles)} cycles"
        body.append(mark(x(each.intensity), y(each.rate), shapes[each.kind], each.kind, told))
    for row, kind in enumerate(sorted({each.kind for each in operators})):
        at = _TOP + 20 * row
        body += [mark(_RIGHT + 24, at - 4, shapes[kind], kind, kind), text(_RIGHT + 36, at, kind, anchor="start")]
    body.append(text(_RIGHT + 24, _BOTTOM - 40, "bytes: of the busier", anchor="start"))
    body.append(text(_RIGHT + 24, _BOTTOM - 24, "direction; padding is no", anchor="start"))
    body.append(text(_RIGHT + 24, _BOTTOM - 8, "multiply-add, but takes time", anchor="start"))
    drawn = svg(_WIDTH, _HEIGHT, body, f"roofline of {title}")
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _power(value: float, rounded: Callable[[float], int]) -> float:
    """A power of two next to a value."""
    return 2.0 ** rounded(math.log2(value))


def _axes(x: Scale, y: Scale) -> list[str]:
    body = []
    for tick in _ticks(x):
        body.append(line(x(tick), _TOP, x(tick), _BOTTOM, "grid"))
        body.append(text(x(tick), _BOTTOM + 18, number(tick)))
    for tick in _ticks(y):
        body.append(line(_LEFT, y(tick), _RIGHT, y(tick), "grid"))
        body.append(text(_LEFT - 8, y(tick) + 4, number(tick), anchor="end"))
    body.append(text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, "multiply-adds a byte of memory traffic"))
    body.append(text(_LEFT - 8, _TOP - 10, "multiply-adds a cycle", anchor="start"))
    return body


def _ticks(scale: Scale) -> list[float]:
    """Powers of two; of ten where there are too many."""
    powers = [2.0**e for e in range(math.ceil(math.log2(scale.low)), math.floor(math.log2(scale.high)) + 1)]
    return powers if len(powers) <= 12 else log_ticks(scale.low, scale.high)


def _roofs(x: Scale, y: Scale, peak: float, bandwidth: float) -> list[str]:
    """Memory up to the ridge, the array behind it."""
    ridge = peak / bandwidth
    begin = max(x.low, y.low / bandwidth)
    return [
        line(x(begin), y(begin * bandwidth), x(ridge), y(peak), "roof"),
        line(x(ridge), y(peak), _RIGHT, y(peak), "roof"),
        text(_RIGHT - 6, y(peak) - 8, f"array: {number(peak)} a cycle", anchor="end"),
        # above the roof, where no point can be
        text(_LEFT + 8, _TOP + 14, f"memory: {number(bandwidth)} bytes a cycle each way", anchor="start"),
    ]
