"""The roofline picture: points where their numbers say, below the roofs."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from tvm_ahcq.evaluate.report.roofline_plot import roofline_plot
from tvm_ahcq.runtime.device_profile import OperatorCycles, total

LAYER = OperatorCycles(
    name="a.qkv",
    kind="linear",
    macs=10**6,
    estimate=5000,
    cycles=5000,
    array=4500,
    vector=900,
    load=4000,
    store=100,
    loaded=20000,
    stored=800,
    transfer=3000,
)
HEADS = replace(LAYER, name="a.attn", kind="attention", macs=10**5, stored=50000)
SPACE = "{http://www.w3.org/2000/svg}"


def points(picture: str, tag: str) -> list[tuple[float, float]]:
    found = [each for each in ElementTree.fromstring(picture).iter(f"{SPACE}{tag}") if each[0].text.startswith("a.")]
    return [(float(each.get("cx")), float(each.get("cy"))) for each in found]


def test_numbers_of_an_operator_are_those_of_its_counters():
    assert (LAYER.busy, LAYER.intensity, LAYER.rate) == (0.9, 50, 200)
    assert HEADS.intensity == 2  # of the busier direction


def test_sums_are_those_of_the_parts():
    both = total([LAYER, HEADS], "both")
    assert (both.macs, both.cycles, both.stored, both.name) == (1100000, 10000, 50800, "both")
    assert both.busy == 0.9


def test_a_point_moves_with_its_intensity_and_its_rate():
    slower = replace(LAYER, name="a.proj", cycles=10000)
    narrower = replace(LAYER, name="a.lin2", loaded=40000)
    picture = roofline_plot("m", [LAYER, slower, narrower], 256, 8)
    (x, y), (x_slow, y_slow), (x_narrow, y_narrow) = points(picture, "circle")
    assert x == x_slow and y_slow > y  # pixels grow downwards
    assert y == y_narrow and x_narrow < x


def test_the_roofs_and_what_they_are_made_of_are_in_the_picture():
    picture = roofline_plot("vit_t & co", [LAYER, HEADS], 256, 8)
    texts = [each.text for each in ElementTree.fromstring(picture).iter(f"{SPACE}text")]
    assert "vit_t & co" in texts and "array: 256 a cycle" in texts and "memory: 8 bytes a cycle each way" in texts
    assert {"linear", "attention"} <= set(texts) and "mlp" not in texts
