"""The report: one well-formed page that needs nothing else, with a place for everything that was measured."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.errors import ReportError
from tvm_ahcq.evaluate.report.graph_plots import anchor
from tvm_ahcq.evaluate.report.report import ROWS, report, write_report
from tvm_ahcq.evaluate.sensitivity.measure import Sensitivity, measure
from tvm_ahcq.evaluate.sensitivity.probes import random_probes
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t

VOID = {"meta", "img", "input", "wbr", "br", "hr", "link"}


class Page(HTMLParser):
    """Tags, ids and links of a page; fails where tags do not nest."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags, self.ids, self.links, self.sources, self.rows = Counter(), [], [], [], []
        self._open: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags[f"{tag}.{given['class']}" if "class" in given else tag] += 1
        self.tags[tag] += "class" in given
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.sources += [given["src"]] if "src" in given else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes another tag at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    colours = [np.random.default_rng(seed).integers(0, 255, (6, 9, 3)) for seed in range(3)]
    return [np.kron(each, np.ones((16, 16, 1))).astype(np.uint8) for each in colours]


@pytest.fixture(scope="module")
def qmodel(pictures) -> QuantizedModel:
    torch.manual_seed(1)
    sam = build_sam_vit_t(
        image_size=64, depth=1, embed_dim=24, num_heads=2, global_attn_indexes=(0,), window_size=3, prompt_dim=32
    )
    return ahcq.quantize(from_module(sam.requires_grad_(False), "tiny"), pictures[:1])


@pytest.fixture(scope="module")
def sensitivity(qmodel, pictures) -> Sensitivity:
    return measure(qmodel, random_probes(pictures[1:]), "sites")


@pytest.fixture(scope="module")
def content(sensitivity) -> str:
    return report(sensitivity)


@pytest.fixture(scope="module")
def page(content) -> Page:
    return Page(content)


def test_every_site_has_its_section_and_every_layer_its_place(page, sensitivity):
    assert page.tags["section.site"] == len(sensitivity.sites)
    assert page.tags["details.layer"] == len(sensitivity.layers)
    wanted = [anchor(part.name) for part in (*sensitivity.sites, *sensitivity.layers)]
    assert set(wanted) <= set(page.ids) and len(page.ids) == len(set(page.ids))
    for part in (*sensitivity.sites, *sensitivity.weights, *sensitivity.layers):
        assert part.name in page.text


def test_nothing_is_fetched_and_every_link_leads_somewhere(content, page):
    assert {link[0] for link in page.links} == {"#"}
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert page.sources and all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "http" not in content and "url(" not in content and "@import" not in content and "//cdn" not in content


def test_no_figure_is_a_nan(content):
    without_pictures = re.sub(r'src="data:[^"]*"', "", content)
    assert not re.search(r"\bnan\b", without_pictures, re.IGNORECASE)


def test_the_table_ranks_every_part_worst_first(content, sensitivity):
    rows = re.findall(r"<tr( class=more)?>(<td.*?)</tr>", content)
    assert len(rows) == len(sensitivity.effects)
    assert [bool(more) for more, _ in rows] == [place >= ROWS for place in range(len(rows))]
    values = [float(re.findall(r'data-value="([^"]*)"', row)[1]) for _, row in rows]
    np.testing.assert_allclose(values, [effect.logits for effect in sensitivity.worst()], rtol=1e-8)
    assert values == sorted(values, reverse=True)


def test_masks_are_shown_in_threes_and_groups_one_by_one(page, sensitivity):
    assert page.tags["div.triple"] == 4 and page.tags["img"] == 12
    groups = sum(len(site.histograms) for site in sensitivity.sites if site.channel_low is not None)
    assert page.text.count("group ") >= groups > 0


def test_the_page_follows_the_readers_colours_and_width(content):
    assert "prefers-color-scheme: dark" in content and "color-scheme: light dark" in content
    assert 'name="viewport"' in content and '<html lang="en">' in content


@pytest.mark.parametrize("granularity", ["layers", "blocks", "none"])
def test_other_granularities_make_whole_pages_too(granularity, qmodel, sensitivity, pictures):
    found = measure(qmodel, random_probes(pictures[2:]), granularity)
    page = Page(report(found))
    assert page.tags["section.site"] == len(sensitivity.sites)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert ("Effect on the masks" in page.text) == (granularity != "none")


def test_extremes_are_written_in_words_or_signs(sensitivity):
    """Constant values, clipped ones, lost signals, rank-deficient weights and a layer that blows up."""
    site, *sites = sensitivity.sites
    one, two, three, *weights = sensitivity.weights
    (layer, *layers), (effect, *effects) = sensitivity.layers, sensitivity.effects
    extreme = replace(
        sensitivity,
        sites=(replace(site, sqnr=float("-inf"), low=0.0, high=0.0), replace(sites[0], sqnr=float("inf")), *sites[1:]),
        weights=(
            replace(one, condition_before=float("inf"), condition_codes=float("inf")),
            replace(two, condition_before=None, condition_after=None, condition_codes=None),
            replace(three, sqnr=float("inf")),
            *weights,
        ),
        layers=(replace(layer, error=float("inf")), replace(layers[0], error=0.0), *layers[1:]),
        effects=(replace(effect, logits=float("inf")), replace(effects[0], logits=0.0), *effects[1:]),
    )
    content = report(extreme)
    page = Page(content)
    assert all(word in page.text for word in ("signal lost", "exact", "rank-deficient", "∞"))
    assert not re.search(r'="(nan|inf|-inf)"', content)
    nothing = replace(
        extreme,
        layers=tuple(replace(each, error=0.0) for each in extreme.layers),
        effects=tuple(replace(each, logits=0.0) for each in extreme.effects),
    )
    Page(report(nothing))


def test_constant_activations_have_a_plot(qmodel, pictures):
    black = [np.zeros_like(pictures[0])]
    found = measure(qmodel, random_probes(black), "none")
    flat = replace(
        found.sites[0],
        low=0.5,
        high=0.5,
        channel_low=np.full_like(found.sites[0].channel_low, 0.5),
        channel_high=np.full_like(found.sites[0].channel_high, 0.5),
    )
    assert "nan" not in Page(report(replace(found, sites=(flat, *found.sites[1:])))).text.lower()


def test_names_are_escaped(sensitivity):
    model = replace(sensitivity.model, name="<script>alert(1)</script>")
    content = report(replace(sensitivity, model=model))
    assert "<script>alert" not in content and "&lt;script&gt;alert" in content


def test_the_file_is_written_whole_or_not_at_all(sensitivity, content, tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text("an older report")
    write_report(sensitivity, path)
    assert path.read_text(encoding="utf-8") == content
    with pytest.raises(ReportError, match="absent"):
        write_report(sensitivity, tmp_path / "absent" / "report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(sensitivity, tmp_path / "folder.html")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.html", "report.html"]
