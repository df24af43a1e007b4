"""Plots along the graph: one column a layer, in the order of execution, blocks named below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tvm_ahcq.evaluate.sensitivity.measure import Sensitivity, block_of
from tvm_ahcq.evaluate.sensitivity.site_error import LayerError

from .svg import Scale, line, linear_ticks, link, log_ticks, mark, number, rect, svg, text
from .text import percent

COLUMN, LEFT, RIGHT, TOP = 13, 62, 14, 12
PLOT_HEIGHT, BLOCK_LABELS = 190, 46

LETTER = 6.5
"""Pixels that a letter of a label takes, about."""

_OPS = {"linear": "c1", "conv2d": "c1", "attention": "c2"}
"""Colour class of a layer's bar."""

_KINDS = {"site": ("circle", "c1"), "weight": ("diamond", "c2"), "layer": ("square", "c1"), "block": ("square", "c1")}
"""Shape and colour class of an effect's point."""


def anchor(name: str) -> str:
    """Id of the part of the page that shows a site or layer."""
    return "site-" + name.replace(".", "-")


def short(block: str) -> str:
    """The last part of a block's name; a number takes the part before it along."""
    *path, last = block.split(".")
    return ".".join([*path[-1:], last]) if last.isdigit() else last


def error_chart(sensitivity: Sensitivity) -> str:
    """A bar for each layer: the relative squared error of its output."""
    layers = sensitivity.layers
    errors = [layer.error for layer in layers]
    top = max([e for e in errors if math.isfinite(e)], default=0.0) * 100 or 1.0
    scale = Scale(0, top * 1.05, TOP + PLOT_HEIGHT, TOP)
    body = _frame(layers, scale, linear_ticks(0, top * 1.05), "%")
    for column, layer in enumerate(layers):
        y = scale(100 * layer.error if math.isfinite(layer.error) else top)
        title = f"{layer.name}\n{layer.op}: output error {percent(layer.error)}"
        bar = rect(_x(column) - COLUMN / 2 + 1.5, y, COLUMN - 3, scale.start - y, _OPS[layer.op], title)
        body.append(link(anchor(layer.name), bar))
    return _svg(layers, body, "Relative squared error of each layer's output, in graph order")


def effect_chart(sensitivity: Sensitivity) -> str:
    """A point for each part quantized alone: how much the mask logits change."""
    layers = sensitivity.layers
    places = _columns(sensitivity)
    found = [100 * e.logits for e in sensitivity.effects if 0 < e.logits < math.inf]
    high, low = max(found, default=1.0) * 1.4, min(found, default=0.1) / 1.3
    scale = Scale(max(low, high * 1e-5), high, TOP + PLOT_HEIGHT, TOP, _log10)
    body = _frame(layers, scale, log_ticks(scale.low, high), "%")
    for effect in sensitivity.effects:
        unit, (shape, colour) = effect.unit, _KINDS[effect.unit.kind]
        percentage = 100 * effect.logits if math.isfinite(effect.logits) else high
        title = (
            f"{unit.name}\n{unit.kind} alone: logits change {percent(effect.logits)}, "
            f"IoU loss {percent(effect.iou_loss)}"
        )
        point = mark(places[unit.name], scale(max(percentage, scale.low)), shape, colour, title)
        body.append(link(anchor(unit.name), point) if unit.kind == "site" else point)
    return _svg(layers, body, "Change of the mask logits when one part is quantized alone, in graph order")


def condition_chart(sensitivity: Sensitivity) -> str:
    """Three points for each weight matrix: its condition number before, after conditioning, and as codes."""
    layers, weights = sensitivity.layers, {weight.layer: weight for weight in sensitivity.weights}
    numbers = [
        n
        for w in weights.values()
        for n in (w.condition_before, w.condition_after, w.condition_codes)
        if n is not None and math.isfinite(n)
    ]
    scale = Scale(1.0, max([*numbers, 10.0]) * 1.5, TOP + PLOT_HEIGHT, TOP, _log10)
    body = _frame(layers, scale, log_ticks(1.0, scale.high), "")
    for column, layer in enumerate(layers):
        weight = weights.get(layer.name)
        if weight is None:
            continue
        before, after, codes = weight.condition_before, weight.condition_after, weight.condition_codes
        if before is None or after is None or codes is None:
            continue
        heights = [scale(value) for value in (before, after, codes)]
        title = (
            f"{weight.name} {' × '.join(map(str, weight.shape))}\nfloat {number(before)}, "
            f"after conditioning and rounding {number(after)}, {weight.bits}-bit codes {number(codes)}"
        )
        x = _x(column)
        body.append(line(x, min(heights), x, max(heights), "stem"))
        if codes != after:
            body.append(mark(x, heights[2], "diamond", "c2", title))
        if after != before:
            body.append(mark(x, heights[1], "circle", "c3", title))
        body.append(mark(x, heights[0], "ring", "c1", title))
    return _svg(layers, body, "Condition number of each weight matrix, in graph order")


def _log10(value: float) -> float:
    return math.log10(value)


def _x(column: int) -> float:
    return LEFT + (column + 0.5) * COLUMN


def _columns(sensitivity: Sensitivity) -> Mapping[str, float]:
    """Return the column of each part that was quantized alone: its layer, or the middle of its block."""
    place: dict[str, float] = {}
    blocks: dict[str, list[int]] = {}
    for column, layer in enumerate(sensitivity.layers):
        blocks.setdefault(block_of(layer), []).append(column)
        place[layer.name] = _x(column)
        place.update({name: _x(column) for name in (*layer.sites, f"{layer.name}.weight")})
    for block, columns in blocks.items():
        place.setdefault(block, sum(map(_x, columns)) / len(columns))
    return place


def _frame(layers: Sequence[LayerError], scale: Scale, ticks: Sequence[float], unit: str) -> list[str]:
    """Grid, values at the left, blocks below, one after the other in alternating shade."""
    body, right, floor = [], LEFT + len(layers) * COLUMN, TOP + PLOT_HEIGHT
    runs: list[tuple[str, int, int]] = []
    for column, layer in enumerate(layers):
        block = block_of(layer)
        if runs and runs[-1][0] == block:
            runs[-1] = (block, runs[-1][1], column + 1)
        else:
            runs.append((block, column, column + 1))
    for index, (block, first, last) in enumerate(runs):
        x1, x2 = LEFT + first * COLUMN, LEFT + last * COLUMN
        if index % 2:
            body.append(rect(x1, TOP, x2 - x1, PLOT_HEIGHT, "band"))
        body += _block_label(short(block), (x1 + x2) / 2, floor, right, staggered=bool(index % 2))
    for tick in ticks:
        body.append(line(LEFT, scale(tick), right, scale(tick), "grid"))
        body.append(text(LEFT - 6, scale(tick) + 4, f"{number(tick)}{' ' + unit if unit else ''}", "tick", "end"))
    body.append(line(LEFT, floor, right, floor, "axis"))
    return body


def _block_label(name: str, x: float, floor: float, right: float, staggered: bool) -> list[str]:
    """The block's short name, in one of two rows so that neighbours do not touch, and not beyond the right end."""
    y = floor + (34 if staggered else 18)
    at_end = x + LETTER * len(name) / 2 > right + RIGHT
    label = text(right + RIGHT, y, name, "tick", "end") if at_end else text(x, y, name, "tick")
    return [line(x, floor, x, y - 11, "grid"), label]


def _svg(layers: Sequence[LayerError], body: Sequence[str], label: str) -> str:
    width = LEFT + len(layers) * COLUMN + RIGHT
    return f'<div class="wide" tabindex="0">{svg(width, TOP + PLOT_HEIGHT + BLOCK_LABELS, body, label)}</div>'
