"""Sensitivity to quantization: errors of sites, layers and weights, and changes of the masks part by part."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.models.description import DECODE, ENCODE
from tvm_ahcq.models.evaluation import PromptedImage
from tvm_ahcq.models.registry import prompting_of
from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import exact_layer_norm, using_sites
from tvm_ahcq.torch_exec.simulated_session import quantized_layers

from .mask_effect import Effect, MaskProbe, Unit, mask_effects
from .probes import Probe, in_frame
from .site_error import ErrorSites, LayerError, SiteError
from .weight_error import WeightError, weight_error

if TYPE_CHECKING:
    from tvm_ahcq.api import QuantizedModel

GRANULARITIES = ("sites", "layers", "blocks", "none")
"""Parts that are quantized alone to measure their effect on the masks, finest first."""

AUTO_SECONDS = 180.0
"""``effect="auto"`` takes the finest granularity that is expected to take no longer, blocks at least."""


@dataclass(frozen=True)
class ModelSummary:
    """The quantized model that was measured.

    Attributes
    ----------
    name : str
        Model type.
    image_size : int
        Side of its input in pixels.
    recipe : str
        Name of the recipe.
    bits_weights, bits_activations : int
        Code widths of the recipe.
    summary : str
        Kinds of quantizers, for people.
    sites : int
        Number of quantization sites.
    """

    name: str
    image_size: int
    recipe: str
    bits_weights: int
    bits_activations: int
    summary: str
    sites: int


@dataclass(frozen=True, eq=False)
class MaskPair:
    """One prompt's masks, float and quantized.

    Attributes
    ----------
    picture : int
        Index of the probe.
    prompt : int
        Index of the prompt, clicks first.
    exact, quantized : numpy.ndarray
        ``(H, W)`` bool.
    iou : float
        Of the two.
    """

    picture: int
    prompt: int
    exact: np.ndarray = field(repr=False)
    quantized: np.ndarray = field(repr=False)
    iou: float


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Result of :func:`measure`.

    Attributes
    ----------
    model : ModelSummary
        The model that was measured.
    probes : tuple of Probe
        Pictures and prompts.
    sites, layers, weights : tuple of SiteError, LayerError, WeightError
        In graph order.
    granularity : str
        One of ``GRANULARITIES``.
    effects : tuple of Effect
        Of every part quantized alone, in graph order.
    total : Effect
        Of the whole model quantized.
    masks : tuple of MaskPair
        Every prompt's masks.
    """

    model: ModelSummary
    probes: tuple[Probe, ...]
    sites: tuple[SiteError, ...]
    layers: tuple[LayerError, ...]
    weights: tuple[WeightError, ...]
    granularity: str
    effects: tuple[Effect, ...]
    total: Effect
    masks: tuple[MaskPair, ...]

    def worst(self, count: int | None = None) -> list[Effect]:
        """The parts whose quantization alone changes the masks most, worst first; all by default."""
        return sorted(self.effects, key=lambda effect: (-effect.logits, -effect.iou_loss, effect.unit.name))[:count]

    def worst_layers(self, count: int | None = None) -> list[LayerError]:
        """The layers whose output is furthest off, worst first; all by default."""
        return sorted(self.layers, key=lambda layer: (-layer.error, layer.name))[:count]

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain JSON values, without samples and pictures; what is infinite becomes None."""
        sites = [
            {
                "name": s.name,
                "layer": s.layer,
                "quantizer": s.params.to_dict(),
                "sqnr": s.sqnr,
                "low": s.low,
                "high": s.high,
            }
            for s in self.sites
        ]
        return _finite(
            {
                "model": asdict(self.model),
                "pictures": len(self.probes),
                "prompts": sum(probe.prompts for probe in self.probes),
                "total": _effect_dict(self.total),
                "granularity": self.granularity,
                "effects": [_effect_dict(effect) for effect in self.worst()],
                "layers": [asdict(layer) for layer in self.layers],
                "sites": sites,
                "weights": [asdict(weight) for weight in self.weights],
            }
        )


def measure(
    qmodel: QuantizedModel,
    probes: Sequence[Probe],
    effect: str = "auto",
    progress: Progress = silent,
    announce: Callable[[str, int, float], None] = lambda *_: None,
) -> Sensitivity:
    """Measure a quantized model on pictures that calibration has not seen.

    Errors of sites and layers are measured one by one on the float model's values, so that they do not add up along the
    graph. The effect on the masks is measured by running the model with one part quantized and the rest in float.

    Parameters
    ----------
    qmodel : QuantizedModel
        From :func:`tvm_ahcq.quantize`.
    probes : sequence of Probe
        Pictures with prompts; a few are enough.
    effect : {"auto", "sites", "layers", "blocks", "none"}
        What is quantized alone to see its effect: each site and weight, each layer with what it reads, or each block.
        "auto" takes the finest that is expected to take at most ``AUTO_SECONDS``.
    progress : callable
        Told of every finished step.
    announce : callable
        Told (granularity, number of parts, expected seconds) before the effects are measured.

    Returns
    -------
    Sensitivity

    Raises
    ------
    CalibrationError
        If there are no pictures or prompts, or the float model's values are not finite.
    """
    if effect not in ("auto", *GRANULARITIES):
        raise ValueError(f"effect is {effect!r}; expected auto, {', '.join(GRANULARITIES)}.")
    probes = tuple(probes)
    if not probes or any(probe.prompts == 0 for probe in probes):
        raise CalibrationError("A sensitivity analysis needs pictures, and a click or box on each; there are none.")
    spec, table = qmodel.model.spec, qmodel.table
    frames = [in_frame(probe, spec) for probe in probes]
    coded = quantized_layers(qmodel.coded_table)
    errors = _observe(qmodel, coded, frames, progress)
    layers, weights = errors.layers(), _weights(qmodel, coded, [layer.name for layer in errors.layers()], progress)
    exact = qmodel.prepared.params
    changed = {name: value for name, value in qmodel.params.items() if value is not exact.get(name)}
    probe = MaskProbe(spec, qmodel.annotated, exact, changed, table.sites, coded, frames)
    first = qmodel.model.family.functions[0].name
    whole = Unit("all", "model", tuple(table.sites), tuple(coded), first)
    granularity, units = _choose(effect, layers, coded, probe)
    announce(granularity, len(units), probe.expected_seconds(units))
    return Sensitivity(
        _summary(qmodel),
        probes,
        tuple(errors.sites()),
        tuple(layers),
        tuple(weights),
        granularity,
        tuple(mask_effects(probe, units, progress)),
        probe.effect(whole),
        tuple(_mask_pairs(probe, whole, probes)),
    )


def block_of(layer: LayerError) -> str:
    """Return the block of a layer: its path up to the first number within it, else the module that holds it.

    ``encoder.layers.3.attn.qkv`` is in ``encoder.layers.3``, ``encoder.neck.2`` in ``encoder.neck``. An attention has
    the name of the module that holds its projections.
    """
    parts = layer.name.split(".")
    for place, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return layer.name if layer.op == "attention" or len(parts) == 1 else ".".join(parts[:-1])


def units_of(granularity: str, layers: Sequence[LayerError], coded: Sequence[str]) -> list[Unit]:
    """Return the parts to quantize alone, in graph order; `coded` are the layers whose weight is quantized."""
    if granularity == "none":
        return []
    found: dict[str, Unit] = {}
    for layer in layers:
        own = (layer.name,) if layer.name in coded else ()
        if granularity == "sites":
            for site in layer.sites:
                found[site] = Unit(site, "site", (site,), (), layer.function)
            for name in own:
                found[f"{name}.weight"] = Unit(f"{name}.weight", "weight", (), own, layer.function)
            continue
        name = block_of(layer) if granularity == "blocks" else layer.name
        before = found.get(name, Unit(name, granularity.removesuffix("s"), (), (), layer.function))
        found[name] = Unit(name, before.kind, before.sites + layer.sites, before.layers + own, before.function)
    return list(found.values())


def _choose(effect: str, layers: Sequence[LayerError], coded, probe: MaskProbe) -> tuple[str, list[Unit]]:
    """The granularity that was asked for or that time allows, and its units."""
    if effect != "auto":
        return effect, units_of(effect, layers, coded)
    for granularity in GRANULARITIES[:2]:
        units = units_of(granularity, layers, coded)
        if probe.expected_seconds(units) <= AUTO_SECONDS:
            return granularity, units
    return "blocks", units_of("blocks", layers, coded)


def _observe(qmodel: QuantizedModel, coded, frames: Sequence[PromptedImage], progress: Progress) -> ErrorSites:
    """Run the float model on every picture and prompt while the errors are added up."""
    changed = qmodel.table.params
    biases = {name: changed[f"{name}.bias"] for name in coded if f"{name}.bias" in changed}
    executor = TorchExecutor(qmodel.annotated, qmodel.prepared.params, {"relax.nn.layer_norm": exact_layer_norm})
    errors, family = ErrorSites(qmodel.table.sites, coded, biases), qmodel.model.family
    encoder, decoder = family.function_name(ENCODE), family.function_name(DECODE)
    taken = family.passed_outputs(ENCODE, DECODE)
    with using_sites(errors), torch.no_grad():
        for done, frame in enumerate(frames, 1):
            errors.function = encoder
            encoded = executor.run(encoder, frame.image)
            outputs = encoded if isinstance(encoded, tuple) else (encoded,)
            errors.function = decoder
            executor.run(decoder, *(outputs[index] for index in taken), *frame.prompts)
            progress("errors", done, len(frames))
    return errors


def _weights(qmodel: QuantizedModel, coded, order: Sequence[str], progress: Progress) -> list[WeightError]:
    found = []
    names = [name for name in order if name in coded]
    for done, name in enumerate(names, 1):
        weight = f"{name}.weight"
        exact = qmodel.prepared.params[weight]
        found.append(weight_error(weight, exact, qmodel.params[weight], coded[name]))
        progress("weights", done, len(names))
    return found


def _mask_pairs(probe: MaskProbe, whole: Unit, probes: Sequence[Probe]) -> list[MaskPair]:
    """Every prompt's masks at the size of the picture."""
    pairs, enlarge = [], prompting_of(probe.spec).enlarge
    for index, low in enumerate(zip(probe.logits, probe.quantized_logits(whole), strict=True)):
        height, width = probes[index].image.shape[:2]
        masks = [enlarge(probe.spec, logits, probe.frames[index], (height, width)) for logits in low]
        pairs += [MaskPair(index, n, a, b, iou(a, b)) for n, (a, b) in enumerate(zip(*masks, strict=True))]
    return pairs


def _summary(qmodel: QuantizedModel) -> ModelSummary:
    recipe, table = qmodel.table.recipe, qmodel.table
    size = qmodel.model.spec.image_size
    bits = recipe.bits_weights, recipe.bits_activations
    return ModelSummary(qmodel.model.name, size, recipe.name, *bits, table.summary(), len(table.sites))


def _effect_dict(effect: Effect) -> dict[str, Any]:
    return {"name": effect.unit.name, "kind": effect.unit.kind, "logits": effect.logits, "iou_loss": effect.iou_loss}


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
