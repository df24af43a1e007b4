"""Training of one unit: the rounding of its weights and the scales of its activations, by gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight
from tvm_ahcq.relay_passes.annotate import Layer
from tvm_ahcq.torch_exec.fake_quant import FakeQuantSites
from tvm_ahcq.torch_exec.lockstep import Lockstep, Unit
from tvm_ahcq.torch_exec.simulate import Sites, using_sites
from tvm_ahcq.torch_exec.trainable import LearnedWeight, TrainableSites

from .progressive_groups import ProgressiveGroups, RowSampler
from .reconstruction_loss import penalty_applies, rounding_penalty, temperature


@dataclass(frozen=True)
class Effort:
    """Length and speed of training.

    Attributes
    ----------
    iterations : int
        Of one image each, for every unit.
    rounding_rate, scale_rate : float
        Adam's learning rates: of alpha, and of scales relative to their size; both fall to 0 on a cosine.
    penalty : float
        Weight of the rounding penalty, for the mean over a unit's weights.
    drop : float
        Probability with which an input element comes from the float stream, and a site's element stays in float.
    groups : tuple of int
        Channel groups of CAG sites, each for an equal part of the first 60 % of the iterations.
    """

    iterations: int = 400
    rounding_rate: float = 1e-2
    scale_rate: float = 1e-3
    penalty: float = 0.05
    drop: float = 0.5
    groups: tuple[int, ...] = (32, 16, 8, 4)


@dataclass(frozen=True)
class StreamState:
    """Quantizers and layers that the quantized stream runs with.

    Attributes
    ----------
    table : QuantTable
        With codes of all weights.
    layers : mapping of str to Layer
        Quantized layers by name.
    sites : FakeQuantSites
        Of the quantized stream.
    """

    table: QuantTable
    layers: Mapping[str, Layer]
    sites: FakeQuantSites

    @classmethod
    def of(cls, table: QuantTable, layers: Mapping[str, Layer]) -> StreamState:
        """Return the state that runs with the weights and biases of `table`."""

        def weight_and_bias(layer: Layer) -> tuple[torch.Tensor, torch.Tensor | None]:
            bias = None if layer.bias is None else table.params.get(layer.bias)
            weight = torch.from_numpy(table.weight(layer.weight).dequantize())
            return weight, None if bias is None else torch.from_numpy(bias)

        sites = FakeQuantSites(table.sites, {name: weight_and_bias(layer) for name, layer in layers.items()})
        return cls(table, layers, sites)


class UnitData:
    """A unit with the values that enter it and those that should leave it, on every image.

    Parameters
    ----------
    lockstep : Lockstep
        Both streams after the unit; the float one holds the targets.
    unit : Unit
        Part of the lockstep's function.
    starts : list
        Values of both streams before the unit, for each image.
    """

    def __init__(self, lockstep: Lockstep, unit: Unit, starts: list):
        self.unit = unit
        self.steps = lockstep.program.steps[unit.first : unit.last]
        self.starts = starts
        self.targets = [[pair[0][slot] for slot in unit.outputs] for pair in lockstep.runs]
        self.energy = [
            max(float(torch.stack([t[i].var() for t in self.targets]).mean()), 1e-20) for i in range(len(unit.outputs))
        ]
        count = len(starts)
        self.held_out = [i for i in range(count) if i % 4 == 3] or [count - 1]
        self.seen = [i for i in range(count) if i not in self.held_out]

    def error(self, sites: Sites, image: int, drop: float = 0.0) -> torch.Tensor:
        """Return the relative squared error of the unit's output on one image."""
        values = self._inputs(image, drop)
        with using_sites(sites):
            for step in self.steps:
                step.run(values)
        outputs = zip(self.unit.outputs, self.targets[image], self.energy, strict=True)
        return sum((values[slot] - target).square().mean() / energy for slot, target, energy in outputs)

    def _inputs(self, image: int, drop: float) -> list[Any]:
        """Return the values of the quantized stream, elements of the float stream mixed in."""
        plain, quantized = self.starts[image]
        if not drop:
            return list(quantized)
        values = []
        for a, b in zip(plain, quantized, strict=True):
            differ = isinstance(a, torch.Tensor) and a is not b and a.is_floating_point()
            values.append(torch.where(torch.rand(a.shape) < drop, a, b) if differ else b)
        return values

    def held_out_error(self, sites: Sites) -> float:
        """Return the mean error on the held-out images, everything quantized."""
        with torch.no_grad():
            return float(np.mean([float(self.error(sites, image)) for image in self.held_out]))


@dataclass(frozen=True)
class TrainedUnit:
    """Quantizers of a unit's sites by name, and its weights with hard codes by name of the parameter."""

    sites: dict[str, QuantizerParams]
    weights: dict[str, QuantizedWeight]


def train_unit(
    data: UnitData,
    state: StreamState,
    float_params: Mapping[str, np.ndarray],
    effort: Effort,
    progress: Callable[[int], None],
) -> TrainedUnit:
    """Learn the rounding and the scales of one unit.

    Parameters
    ----------
    data : UnitData
        Inputs and targets.
    state : StreamState
        Where training starts.
    float_params : mapping of str to numpy.ndarray
        Float parameters, which weights are rounded towards.
    effort : Effort
        Length and speed.
    progress : callable
        Called with the number of each finished iteration of this unit.
    """
    parameters = {name: state.layers[name].weight for name in data.unit.layers}
    learned = {
        name: LearnedWeight.of(state.table.weight(weight), torch.from_numpy(float_params[weight]))
        for name, weight in parameters.items()
    }
    names = tuple(site for site in state.table.sites if site.rpartition(".")[0] in _members(data.unit))
    sites = TrainableSites(state.table.sites, state.sites.layers, learned, names, effort.drop)
    grouping = _grouping(data, state, sites, float_params, effort)
    optimiser, count = None, max(1, sum(weight.alpha.numel() for weight in learned.values()))
    for iteration in range(effort.iterations):
        if grouping.regroup(iteration) or optimiser is None:
            optimiser = _optimiser(learned, sites, effort)
        _anneal(optimiser, iteration, effort.iterations)
        loss = data.error(sites, data.seen[iteration % len(data.seen)], effort.drop)
        if penalty_applies(iteration, effort.iterations):
            beta = temperature(iteration, effort.iterations)
            loss = loss + sum(rounding_penalty(w.alpha, beta, effort.penalty / count) for w in learned.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress(iteration)
    return TrainedUnit(
        {site: sites.trained(site) for site in sites.scales},
        {parameters[name]: weight.hard() for name, weight in learned.items()},
    )


def _members(unit: Unit) -> set[str]:
    """Return the names of the unit, of its layers, and of the attentions that these belong to."""
    return {*unit.layers, *(name.rpartition(".")[0] for name in unit.layers), unit.name}


def _optimiser(learned: Mapping[str, LearnedWeight], sites: TrainableSites, effort: Effort) -> torch.optim.Adam:
    """Return Adam over the rounding variables and the scales; ``initial`` of a group is its first learning rate."""
    groups = [{"params": [w.alpha], "lr": effort.rounding_rate} for w in learned.values()]
    for scale in sites.scales.values():
        groups.append({"params": [scale], "lr": effort.scale_rate * float(scale.detach().abs().mean())})
    optimiser = torch.optim.Adam(groups)
    for group in optimiser.param_groups:
        group["initial"] = group["lr"]
    return optimiser


def _anneal(optimiser: torch.optim.Adam, iteration: int, iterations: int) -> None:
    """Set the learning rates of a cosine schedule."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial"] * 0.5 * (1 + np.cos(np.pi * iteration / iterations))


def _grouping(
    data: UnitData,
    state: StreamState,
    sites: TrainableSites,
    float_params: Mapping[str, np.ndarray],
    effort: Effort,
) -> ProgressiveGroups:
    """Return the progressive grouping of the unit's CAG sites, with rows of the quantized stream."""
    sampler = RowSampler(state.sites, [site for site in sites.scales if isinstance(sites.quantizers[site], CagParams)])
    with torch.no_grad():
        for image in data.seen:
            data.error(sampler, image)
    rows = sampler.rows()
    matrices = {
        layer.site: float_params[layer.weight].reshape(len(float_params[layer.weight]), -1)
        for layer in state.layers.values()
        if layer.site in rows
    }
    energy = {site: np.square(matrix, dtype=np.float64).sum(0) for site, matrix in matrices.items()}
    limit = state.table.recipe.groups
    counts = [count for count in effort.groups if count > limit] + [limit]
    return ProgressiveGroups(sites, rows, energy, counts, effort.iterations)
