"""Plots of one site: its values against the levels that its quantizer can take, and the ranges of its channels."""

from __future__ import annotations

import math

import numpy as np

from tvm_ahcq.evaluate.sensitivity.histogram import Histogram
from tvm_ahcq.evaluate.sensitivity.site_error import SiteError
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.core.codebook import Codebook

from .svg import Scale, line, linear_ticks, log_ticks, number, rect, segments, svg, symlog, text

WIDTH, LEFT, RIGHT = 540, 58, 12
BARS, LEVELS, AXIS = 92, 16, 20
LEAST_SHARE = 1e-4
"""Bottom of the axis of shares."""

COLOURS = 8
"""Colour classes ``c1`` ... that channel groups take in turn."""


def group_colour(group: int) -> str:
    """Colour class of a channel group."""
    return f"c{group % COLOURS + 1}"


def distribution(site: SiteError) -> str:
    """Histograms of the site's values over the levels of its quantizer; one for each channel group."""
    books = site.params.codebooks()
    plots = []
    for index, (book, histogram) in enumerate(zip(books, site.histograms, strict=True)):
        colour, caption = "c1", ""
        if isinstance(site.params, CagParams):
            colour, members = group_colour(index), site.params.group_of.count(index)
            caption = f"group {index + 1}: {members} channel{'s' if members != 1 else ''}"
        kinds = _level_kinds(site, book, colour)
        plots.append(_histogram(histogram, book, kinds, colour, caption, f"Values at {site.name} {caption}".strip()))
    return "".join(plots)


def channel_ranges(site: SiteError) -> str:
    """A line from least to greatest value for each channel, widest first within its group."""
    params = site.params
    if site.channel_low is None or site.channel_high is None or not isinstance(params, CagParams):
        return ""
    low, high, member = site.channel_low, site.channel_high, np.asarray(params.group_of)
    order = np.lexsort((low - high, member))
    height, floor = 130, 138
    reach = max(float(high.max()), -float(low.min()), 1e-30)
    unit = max(float(np.median(high - low)) / 2, reach * 1e-4)
    ends = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    y = Scale(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1, floor, floor - height, symlog(unit))
    x = Scale(0, len(low), LEFT, WIDTH - RIGHT)
    body = []
    for tick in _symlog_ticks(*ends, unit):
        body.append(line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid"))
        body.append(text(LEFT - 6, y(tick) + 4, number(tick), "tick", "end"))
    for group in range(params.groups):
        places = np.flatnonzero(member[order] == group)
        chosen = order[places]
        at, bottoms, tops = (
            [f(v) for v in values] for f, values in ((x, places + 0.5), (y, low[chosen]), (y, high[chosen]))
        )
        thickness = "fine" if len(low) > 300 else "thick"
        body.append(segments(at, bottoms, tops, f"range {thickness} s{group_colour(group)[1:]}"))
    body.append(text((LEFT + WIDTH - RIGHT) / 2, floor + 16, f"{len(low)} channels, by group and range", "tick"))
    return svg(WIDTH, floor + 22, body, f"Range of each channel at {site.name}, coloured by group")


def _level_kinds(site: SiteError, book: Codebook, colour: str) -> list[str]:
    """Colour class of each level: powers of two of HLUQ apart from its equal steps."""
    if not isinstance(site.params, HluqParams):
        return [colour.replace("c", "s")] * len(book.table)
    return ["s3" if code <= site.params.log_levels else "s2" for code in range(len(book.table))]


def _histogram(h: Histogram, book: Codebook, kinds: list[str], colour: str, caption: str, label: str) -> str:
    levels = book.decode(np.arange(len(book.table))).astype(np.float64)
    top = 26
    floor = top + BARS
    if h.log:
        x = Scale(h.edges[0], h.edges[-1], LEFT, WIDTH - RIGHT, math.log10)
        ticks = log_ticks(h.edges[0], h.edges[-1])
    else:
        margin = 0.02 * (h.edges[-1] - h.edges[0])
        x = Scale(h.edges[0] - margin, h.edges[-1] + margin, LEFT, WIDTH - RIGHT)
        ticks = linear_ticks(x.low, x.high, 7)
    y = Scale(LEAST_SHARE, 1.0, floor, top, math.log10)
    body = [line(LEFT, y(s), WIDTH - RIGHT, y(s), "grid") for s in (1e-3, 1e-2, 1e-1, 1.0)]
    body += [text(LEFT - 6, y(s) + 4, f"{number(100 * s)} %", "tick", "end") for s in (1e-4, 1e-2, 1.0)]
    for share, left, right in zip(h.shares, h.edges, h.edges[1:], strict=False):
        if share > 0:
            height = y(max(share, LEAST_SHARE * 1.15))
            body.append(rect(x(left) + 0.4, height, x(right) - x(left) - 0.8, floor - height, f"{colour} soft"))
    shown = [(level, kind) for level, kind in zip(levels, kinds, strict=True) if x.low <= level <= x.high]
    for kind in dict.fromkeys(kind for _, kind in shown):
        at = [x(level) for level, own in shown if own == kind]
        body.append(segments(at, [top] * len(at), [floor] * len(at), f"guide {kind}"))
        body.append(segments(at, [floor] * len(at), [floor + LEVELS] * len(at), f"level {kind}"))
    body += [text(x(tick), floor + LEVELS + 14, number(tick), "tick") for tick in ticks]
    body.append(line(LEFT, floor, WIDTH - RIGHT, floor, "axis"))
    notes = [caption] if caption else []
    notes += [f"{number(100 * h.below)} % of the values lie below {number(h.edges[0])}"] if h.below else []
    outside = len(levels) - len(shown) - int(h.log and 0.0 in levels)  # 0 has no place on a logarithmic axis
    notes += [f"{outside} of {len(levels)} levels lie outside the plot"] if outside else []
    if notes:
        body.append(text(LEFT, 14, "; ".join(notes), "note", "start"))
    return svg(WIDTH, floor + LEVELS + AXIS, body, label)


def _symlog_ticks(low: float, high: float, unit: float) -> list[float]:
    """0 and powers of ten on both sides, from about the unit on; equal steps where the axis hardly bends."""
    reach = max(high, -low)
    if reach < 10 * unit:
        return linear_ticks(low, high, 5) if high > low else [low]
    first, last = math.floor(math.log10(unit)) + 1, math.floor(math.log10(max(reach, unit)) + 1e-9)
    powers = [10.0**exponent for exponent in range(first, last + 1)][-4:] or [10.0 ** (first - 1)]
    return [t for t in (*(-p for p in reversed(powers)), 0.0, *powers) if low <= t <= high]
