"""The part of the report that shows every layer: its weight, and its sites' values against their quantizers."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from tvm_ahcq.evaluate.sensitivity.mask_effect import Effect
from tvm_ahcq.evaluate.sensitivity.measure import Sensitivity
from tvm_ahcq.evaluate.sensitivity.site_error import LayerError, SiteError
from tvm_ahcq.evaluate.sensitivity.weight_error import WeightError
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams

from .graph_plots import anchor
from .site_plots import channel_ranges, distribution
from .svg import number
from .text import breakable, condition, decibels, key, percent, quantizer

OPEN = 1
"""Layers that are open when the page is: the worst one."""


def layer_details(s: Sensitivity) -> str:
    """A section for every layer, with one for each of its sites."""
    sites, weights = {site.name: site for site in s.sites}, {weight.layer: weight for weight in s.weights}
    effects = {effect.unit.name: effect for effect in s.effects}
    opened = {layer.name for layer in s.worst_layers(OPEN)}
    parts = [
        _layer(layer, [sites[name] for name in layer.sites], weights.get(layer.name), effects, layer.name in opened)
        for layer in s.layers
    ]
    return (
        '<section id="layers">\n<h2>Every site</h2>\n<p>In graph order. Bars: how many of the values at a site fall '
        "there, on a logarithmic axis. The marks below the axis, with faint lines through the plot, are the values "
        "that a code can stand for. A quantizer suits its site where levels are close together under high bars and "
        "where no bars stand far outside the outermost levels.</p>\n"
        + key([("t3", "full", "HLUQ: powers of two"), ("t2", "full", "HLUQ: equal steps")])
        + '<p id="layer-tools" hidden><label>Show layers whose name contains <input type="search"></label> '
        '<button type="button" class="button">Open or close all</button></p>\n' + "\n".join(parts) + "\n</section>"
    )


def _layer(
    layer: LayerError, sites: Iterable[SiteError], weight: WeightError | None, effects: dict[str, Effect], opened: bool
) -> str:
    sites = list(sites)
    names = " ".join([layer.name, *(site.name for site in sites)]).lower()
    worst = min((site.sqnr for site in sites), default=float("inf"))
    summary = f"output error {percent(layer.error)}, least SQNR {decibels(worst)}"
    body = [_weight(weight, effects)] if weight else []
    body += ['<div class="sites">', *(_site(site, effects) for site in sites), "</div>"]
    return (
        f'<details class="layer" id="{anchor(layer.name)}" data-names="{escape(names, quote=True)}"'
        f"{' open' if opened else ''}>"
        f'<summary><b>{breakable(layer.name)}</b><span class="soft">{summary}</span></summary>\n'
        f'<p class="soft">{layer.op}, in {layer.function}{_effect(effects.get(layer.name))}</p>\n'
        + "\n".join(body)
        + "\n</details>"
    )


def _weight(weight: WeightError, effects: dict[str, Effect]) -> str:
    shape = " × ".join(map(str, weight.shape))
    conditions = ""
    if weight.condition_before is not None:
        stages: list[tuple[str, float | None]] = [("float", weight.condition_before)]
        if weight.condition_after != weight.condition_before:
            stages.append(("after conditioning and rounding", weight.condition_after))
        if weight.condition_codes != weight.condition_after:
            stages.append(("codes", weight.condition_codes))
        conditions = "; condition number: " + ", ".join(f"{name} {condition(value)}" for name, value in stages)
    return (
        f"<h4>{breakable(weight.name)}</h4>\n<p>{shape}, {weight.bits} bits, SQNR {decibels(weight.sqnr)}{conditions}"
        f"{_effect(effects.get(weight.name))}</p>"
    )


def _site(site: SiteError, effects: dict[str, Effect]) -> str:
    ranges = channel_ranges(site)
    figures = [f"<figure>{distribution(site)}</figure>"]
    if ranges:
        figures.append(
            f"<figure>{ranges}<figcaption>Least to greatest value of each channel; a colour is a group, which shares "
            "one step and zero point.</figcaption></figure>"
        )
    return (
        f'<section class="site" id="{anchor(site.name)}">\n<h4>{breakable(site.name)}</h4>\n'
        f"<p>{escape(quantizer(site.params))}{escape(_parameters(site))}; values from {number(site.low)} to "
        f"{number(site.high)}; SQNR {decibels(site.sqnr)}{_effect(effects.get(site.name))}</p>\n"
        f'<div class="plots">{"".join(figures)}</div>\n</section>'
    )


def _parameters(site: SiteError) -> str:
    """Return the parameters that distinguish a quantizer from others of its kind."""
    params = site.params
    if isinstance(params, CagParams):
        return f", {params.groups} groups, steps {', '.join(map(number, params.scales))}"
    if isinstance(params, HluqParams):
        uniform = 2**params.bits - params.log_levels - 1
        return f", {params.log_levels} powers of two and {uniform} equal steps from {number(params.offset)}"
    values = {name: value for name, value in params.to_dict().items() if name not in ("kind", "bits")}
    return "".join(f", {name.replace('_', ' ')} {number(value)}" for name, value in values.items())


def _effect(effect: Effect | None) -> str:
    if effect is None:
        return ""
    return f"; alone it changes the mask logits by {percent(effect.logits)} and costs {percent(effect.iou_loss)} of IoU"
