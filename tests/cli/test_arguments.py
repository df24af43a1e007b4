"""Prompts and files as they are typed."""

from __future__ import annotations

import argparse

import pytest

from tvm_ahcq.cli.arguments import box, point
from tvm_ahcq.cli.console import duration, ratio, size


def test_a_point_is_on_the_object_unless_it_says_otherwise() -> None:
    assert point("120,80") == (120.0, 80.0, 1)
    assert point("120,80,1") == (120.0, 80.0, 1)
    assert point("12.5,80,0") == (12.5, 80.0, 0)


def test_a_box_goes_from_top_left_to_bottom_right() -> None:
    assert box("40,30,200,180.5") == (40.0, 30.0, 200.0, 180.5)


@pytest.mark.parametrize("text", ["", "1", "1,", "1,2,", "1,2,2", "1,2,-1", "1,2,1,1", "x,2", "inf,2", "1;2"])
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected X,Y"):
        point(text)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "3,2,1,4", "1,2,1,4", "1,4,3,2", "0,0,inf,1", "a,b,c,d"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected X0,Y0,X1,Y1"):
        box(text)


def test_sizes_durations_and_ratios_read_well() -> None:
    assert [size(n) for n in (0, 999, 1000, 2_345_678, 12e9)] == ["0 B", "999 B", "1.0 kB", "2.3 MB", "12.00 GB"]
    assert [duration(s) for s in (0.00984, 0.9994, 21.0)] == ["9.8 ms", "999.4 ms", "21.0 s"]
    assert [ratio(r, "faster", "slower") for r in (4.2, 1.0, 0.5)] == ["4.2x faster", "1.0x faster", "2.0x slower"]
