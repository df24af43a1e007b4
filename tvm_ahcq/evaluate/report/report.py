"""The report of a sensitivity analysis: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np

from tvm_ahcq import __version__
from tvm_ahcq.atomic_file import atomic_file
from tvm_ahcq.errors import ReportError
from tvm_ahcq.evaluate.sensitivity.mask_effect import Effect
from tvm_ahcq.evaluate.sensitivity.measure import Sensitivity
from tvm_ahcq.evaluate.sensitivity.site_error import LayerError, SiteError
from tvm_ahcq.evaluate.sensitivity.weight_error import WeightError

from . import graph_plots
from .layer_details import layer_details
from .mask_pictures import instructive, side_by_side
from .text import breakable, decibels, key, percent, quantizer

PICTURES = 4
"""Pictures whose masks are shown."""

ROWS = 15
"""Rows of the ranked table that are shown at first."""

_FOLDER = Path(__file__).parent


def write_report(sensitivity: Sensitivity, path: str | os.PathLike[str]) -> None:
    """Write the report; the file appears complete or not at all.

    Raises
    ------
    ReportError
        The file cannot be written.
    """
    try:
        with atomic_file(path) as file:
            file.write(report(sensitivity).encode())
    except OSError as error:
        raise ReportError(f"The report cannot be written to {path}: {error}") from error


def report(sensitivity: Sensitivity) -> str:
    """The report as HTML."""
    title = f"What {bits(sensitivity)} costs {sensitivity.model.name}"
    sections = (
        _header(title, sensitivity),
        _ranking(sensitivity),
        _graph(sensitivity),
        _masks(sensitivity),
        _conditions(sensitivity),
        layer_details(sensitivity),
    )
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + f"\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def bits(sensitivity: Sensitivity) -> str:
    """Weight and activation bits, as ``W4A4``."""
    return f"W{sensitivity.model.bits_weights}A{sensitivity.model.bits_activations}"


def _header(title: str, s: Sensitivity) -> str:
    prompts = sum(probe.prompts for probe in s.probes)
    overlap = float(np.mean([pair.iou for pair in s.masks]))
    tiles = [
        ("Agreement of masks", f"{overlap:.3f}", "mean IoU of quantized with float masks"),
        ("Change of mask logits", percent(s.total.logits), "everything quantized, relative to float"),
        ("Precision", bits(s), f"recipe {s.model.recipe}"),
        ("Sites", str(len(s.sites)), _kinds(s)),
        ("Measured on", f"{prompts} prompts", f"on {len(s.probes)} picture{'s' if len(s.probes) != 1 else ''}"),
    ]
    cells = "".join(
        f'<div><dt>{escape(name)}</dt><dd>{escape(value)}<span class="note">{escape(note)}</span></dd></div>'
        for name, value, note in tiles
    )
    size = s.model.image_size
    return (
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(s.model.name)}, {size} × {size} pixels; '
        f"measured by tvm-ahcq {__version__}</p>\n"
        '<nav aria-label="Sections"><a href="#worst">What hurts most</a><a href="#graph">Along the graph</a>'
        '<a href="#masks">Masks</a><a href="#conditions">Condition numbers</a><a href="#layers">Every site</a></nav>\n'
        f'<dl class="tiles">{cells}</dl>\n</header>'
    )


def _kinds(s: Sensitivity) -> str:
    """Return the number of sites of each kind of quantizer."""
    counts = Counter(site.params.kind for site in s.sites)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) + f"; {len(s.weights)} weights"


def _ranking(s: Sensitivity) -> str:
    """The parts that were quantized alone, worst first; without them the layers, by the error of their output."""
    if s.effects:
        text = (
            f"Each {_part(s.granularity)} was quantized alone, everything else left in float. The change of the mask "
            "logits is the finer measure; IoU loss is what is left of it after thresholding. Errors do not simply add "
            "up: what one part adds, another may hide."
        )
        heads = [
            ("Rank", "n"),
            ("Part", ""),
            ("Mask logits change", "n"),
            ("IoU loss", "n"),
            ("Quantizer", ""),
            ("SQNR", "n"),
            ("Layer’s output error", "n"),
        ]
        rows = list(_effect_rows(s))
    else:
        text = "Layers by the error of their output. How the masks change was not measured (--effect none)."
        heads = [("Rank", "n"), ("Layer", ""), ("Kind", ""), ("Output error", "n")]
        rows = [_layer_row(rank, layer, s) for rank, layer in enumerate(s.worst_layers(), 1)]
    head = "".join(f'<th scope="col"{_class(c)}>{escape(name)}</th>' for name, c in heads)
    body = "\n".join(f"<tr{' class=more' if place >= ROWS else ''}>{row}</tr>" for place, row in enumerate(rows))
    return (
        f'<section id="worst">\n<h2>What hurts most</h2>\n<p>{text}</p>\n<div class="wide" tabindex="0">'
        f'<table class="sortable" data-first="{ROWS}"><caption>{len(rows)} parts, worst first</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n</section>"
    )


def _part(granularity: str) -> str:
    return {
        "sites": "activation site and each weight",
        "layers": "layer, with the sites that it reads,",
        "blocks": "block",
    }[granularity]


def _effect_rows(s: Sensitivity) -> Iterable[str]:
    sites, weights = {site.name: site for site in s.sites}, {weight.name: weight for weight in s.weights}
    layers = {layer.name: layer for layer in s.layers}
    worst = s.worst()
    top = max((e.logits for e in worst if np.isfinite(e.logits)), default=1.0) or 1.0
    for rank, effect in enumerate(worst, 1):
        name = effect.unit.name
        site, weight = sites.get(name), weights.get(name)
        measured = site or weight
        layer = layers.get(measured.layer if measured else name)
        yield "".join(
            [
                _number(rank, str(rank)),
                f'<td class="name">{_linked(name, layer)}</td>',
                _number(effect.logits, percent(effect.logits), _meter(effect, top)),
                _number(effect.iou_loss, percent(effect.iou_loss)),
                f'<td class="kind">{escape(_kind(site, weight))}</td>',
                _number(measured.sqnr, decibels(measured.sqnr)) if measured else _number(np.nan, "–"),
                _number(layer.error, percent(layer.error)) if layer else _number(np.nan, "–"),
            ]
        )


def _kind(site: SiteError | None, weight: WeightError | None) -> str:
    """Return the quantizer of a part that is one site or one weight, for people."""
    return quantizer(site.params) if site else f"{weight.bits}-bit weight" if weight else ""


def _layer_row(rank: int, layer: LayerError, s: Sensitivity) -> str:
    cells = _number(rank, str(rank)) + f'<td class="name">{_linked(layer.name, layer)}</td><td>{layer.op}</td>'
    return cells + _number(layer.error, percent(layer.error))


def _linked(name: str, layer: LayerError | None) -> str:
    """The part's name, leading to its plots."""
    if layer is None:
        return breakable(name)
    target = name if name in layer.sites else layer.name
    return f'<a href="#{graph_plots.anchor(target)}">{breakable(name)}</a>'


def _number(value: float, text: str, after: str = "") -> str:
    """A cell that sorts by its exact value; what is unknown or lost sorts to an end."""
    exact = -1.0 if np.isnan(value) else float(np.clip(value, -1e308, 1e308))
    return f'<td class="n" data-value="{exact:.9g}">{escape(text)}{after}</td>'


def _meter(effect: Effect, top: float) -> str:
    width = 100 * min(effect.logits / top, 1.0)
    return f'<span class="meter" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _graph(s: Sensitivity) -> str:
    parts = [
        '<section id="graph">\n<h2>Along the graph</h2>',
        "<h3>Error of each layer’s output</h3>",
        "<p>Each layer is given the float model’s values, rounded by its own quantizers; its output is compared with "
        "the float one: ‖y<sub>q</sub> − y‖² / ‖y‖². Errors of layers before it are not in it.</p>",
        key([("t1", "full", "linear layer or convolution"), ("t2", "full", "attention")]),
        graph_plots.error_chart(s),
    ]
    if s.effects:
        kinds = [("t1", "full round", "activation site"), ("t2", "tilted", "weight")]
        if s.granularity != "sites":
            kinds = [("t1", "full", s.granularity.removesuffix("s"))]
        parts += [
            "<h3>Effect on the masks</h3>",
            f"<p>Change of the mask logits when one {s.granularity.removesuffix('s')} is quantized alone, on a "
            "logarithmic axis. Point at a mark to see which it is.</p>",
            key(kinds),
            graph_plots.effect_chart(s),
        ]
    return "\n".join([*parts, "</section>"])


def _masks(s: Sensitivity) -> str:
    label = f"{bits(s)}"
    figures = []
    for pair in instructive(s.masks, min(PICTURES, len(s.probes))):
        probe = s.probes[pair.picture]
        prompt = "click" if pair.prompt < len(probe.clicks) else "box"
        uris = side_by_side(pair, probe)
        alternatives = (f"float mask of picture {pair.picture + 1}", f"{label} mask", "difference of the two masks")
        cells = "".join(
            f'<figure><img src="{uri}" alt="{escape(alt)}"><figcaption>{escape(name)}</figcaption></figure>'
            for uri, alt, name in zip(uris, alternatives, ("float", label, "difference"), strict=True)
        )
        figures.append(
            f'<div class="triple"><p>Picture {pair.picture + 1}, {prompt} {_of_kind(pair.prompt, len(probe.clicks))}: '
            f"IoU {pair.iou:.3f}</p><div>{cells}</div></div>"
        )
    return (
        f'<section id="masks">\n<h2>Masks side by side</h2>\n<p>For each picture the prompt whose masks agree least, '
        "and one in the middle. In the difference, pixels of both masks are light, those of the float mask alone blue, "
        f"those of the {label} mask alone orange.</p>\n"
        + '<div class="triples">\n'
        + "\n".join(figures)
        + "\n</div>\n</section>"
    )


def _of_kind(prompt: int, clicks: int) -> int:
    """Number of a prompt among those of its kind, from 1."""
    return prompt + 1 if prompt < clicks else prompt - clicks + 1


def _conditions(s: Sensitivity) -> str:
    if not any(weight.condition_before is not None for weight in s.weights):
        return ""
    return (
        '<section id="conditions">\n<h2>Condition numbers of weights</h2>\n<p>Greatest over least singular value. An '
        "ill-conditioned weight passes on the error of its input in directions where its signal is small. Rounding "
        "alone also moves the smallest singular values, up or down, and with them this number.</p>\n"
        + key(
            [
                ("t1", "round", "float model"),
                ("t3", "full round", "after conditioning and rounding, if changed"),
                ("t2", "tilted", "what the codes stand for, if not the same"),
            ]
        )
        + graph_plots.condition_chart(s)
        + "\n</section>"
    )
