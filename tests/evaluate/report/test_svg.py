"""Scales, ticks and figures of the report's plots."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tvm_ahcq.evaluate.report.svg import (
    Scale,
    line,
    linear_ticks,
    log_ticks,
    mark,
    number,
    rect,
    segments,
    svg,
    symlog,
    text,
)


def test_a_scale_maps_its_ends_and_holds_values_beyond_them():
    scale = Scale(0, 10, 100, 0)
    assert [scale(v) for v in (0, 10, 5, -3, 12)] == [100, 0, 50, 100, 0]
    log = Scale(1, 1000, 0, 30, math.log10)
    assert log(10) == pytest.approx(10) and log(0.001) == 0
    bent = Scale(-100, 100, 0, 10, symlog(1.0))
    assert bent(0) == 5 and bent(-7) + bent(7) == pytest.approx(10) and bent(1) - bent(0) > bent(100) - bent(70)


@pytest.mark.parametrize("low, high", [(0, 1), (-3.3, 4.1), (0, 4.1), (1e-9, 3e-9), (-2e6, 1e5), (0.999, 1.001)])
def test_linear_ticks_are_few_round_and_inside(low, high):
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-9 * abs(low) <= tick <= high * (1 + 1e-9) for tick in ticks)
    steps = {round((b - a) / (ticks[1] - ticks[0]), 6) for a, b in pairwise(ticks)}
    assert steps == {1.0}
    assert (low > 0 or high < 0) or 0.0 in ticks


def test_log_ticks_are_powers_of_ten_or_finer_where_these_are_few():
    assert log_ticks(1e-6, 1) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1], rel=1e-9)
    assert len(log_ticks(1e-30, 1e30)) <= 8
    assert log_ticks(0.04, 3) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])


@pytest.mark.parametrize(
    "value, written",
    [
        (0, "0"),
        (1, "1"),
        (-0.25, "−0.25"),
        (12345.6, "12\u2009346"),
        (1234567, "1.2e6"),
        (1e-19, "1e−19"),
        (0.0123, "0.0123"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_are_short(value, written):
    assert number(value) == written


def test_elements_are_well_formed_whatever_they_are_called():
    name = 'a<b>&"c"'
    picture = svg(
        10,
        10,
        [
            rect(0, 0, -1, 2, "c1", name),
            rect(0, 0, 1, 2, "c1"),
            line(0, 0, 1, 1, "grid"),
            text(0, 0, name),
            segments([1, 2], [0, 0], [3, 4], "s1"),
            *(mark(1, 1, shape, "c1", name) for shape in ("circle", "ring", "square", "diamond")),
        ],
        name,
    )
    root = ElementTree.fromstring(picture)
    assert root.attrib["aria-label"] == name
    assert [title.text for title in root.iter("title")] == [name] * 5
    assert "-1" not in root[0].attrib["width"]
