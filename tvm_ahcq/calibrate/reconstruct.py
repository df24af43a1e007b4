"""Phase 5, high effort: block reconstruction with gradients, after error-compensated rounding.

Block by block, the rounding of its weights and the scales of its activations are learned so that, on quantized inputs,
it gives what the float block gives on float ones. A result is kept only where it does better on images that it has not
seen. Finished blocks are saved, so a run that was killed goes on after the last of them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tvm.ir import IRModule

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.models.description import ModelFamily
from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.activation.cag import CagParams, calibrate_cag, regroup_by_error
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.table import QuantTable, WeightRange
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight, encode_weight
from tvm_ahcq.relay_passes.annotate import Layer, layers
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.fake_quant import FakeQuantSites
from tvm_ahcq.torch_exec.lockstep import Finished, Lockstep, Streams, Unit, drive_in_step, units
from tvm_ahcq.torch_exec.simulate import Sites, exact_layer_norm, using_sites
from tvm_ahcq.torch_exec.trainable import LearnedWeight, TrainableSites

from .reconstruction_loss import penalty_applies, rounding_penalty, temperature
from .resume import FinishedUnits, UnitResult
from .samples import Samples


@dataclass(frozen=True)
class Effort:
    """How long and how fast reconstruction learns.

    Attributes
    ----------
    iterations : int
        Of one image each, for every block.
    rounding_rate, scale_rate : float
        Adam's learning rates: of alpha, and of scales relative to their size; both fall to 0 on a cosine.
    penalty : float
        Weight of the rounding penalty, for the mean over a block's weights.
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
class Reconstruction:
    """The new table, and each block's result by its name."""

    table: QuantTable
    units: dict[str, UnitResult]


def reconstruct(
    mod: IRModule,
    params: Mapping[str, np.ndarray],
    table: QuantTable,
    samples: Samples,
    effort: Effort | None = None,
    progress: Progress = silent,
    work_dir: Path | None = None,
) -> Reconstruction:
    """Learn the rounding and the scales of every block.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    table : QuantTable
        Rounded, from :func:`.round.round_weights`.
    samples : Samples
        Calibration samples; at least 2, every fourth is held out.
    effort : Effort, optional
        How long to learn.
    progress : callable
        Told of iterations, over all blocks.
    work_dir : Path, optional
        Folder where finished blocks are saved; what lies there from the same run is taken up.

    Raises
    ------
    CalibrationError
        If there are fewer than 2 samples.
    QuantTableError
        If the folder holds another run.
    """
    if len(samples) < 2:
        raise CalibrationError(f"Reconstruction needs 2 images or more, one to check itself on; got {len(samples)}.")
    run = _Reconstruction(mod, params, table, effort or Effort(), progress)
    run.saved = FinishedUnits.open(work_dir, _fingerprint(run, samples))
    with torch.random.fork_rng(devices=[]):
        run.run(samples)
    return Reconstruction(run.table, run.results)


class _Reconstruction:
    """State of one run."""

    def __init__(self, mod: IRModule, params, table: QuantTable, effort: Effort, progress: Progress):
        self.float_params = params
        self.executor = TorchExecutor(mod, params, {"relax.nn.layer_norm": exact_layer_norm})
        self.layers: dict[str, Layer] = layers(mod)
        self.effort, self.progress = effort, progress
        self.results: dict[str, UnitResult] = {}
        self.saved = FinishedUnits(None, {})
        self.take(table)

    def take(self, table: QuantTable) -> None:
        """Go on with `table`."""
        self.table = table
        self.sites = FakeQuantSites(table.sites, {name: self.layer(name) for name in self.layers})

    def layer(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias that a layer runs with now."""
        layer = self.layers[name]
        weight = torch.from_numpy(self.quantized(name).dequantize())
        bias = None if layer.bias is None else self.table.params.get(layer.bias)
        return weight, None if bias is None else torch.from_numpy(bias)

    def quantized(self, name: str) -> QuantizedWeight:
        """Codes of a layer now."""
        weight = self.layers[name].weight
        ranges = self.table.weights[weight]
        return encode_weight(self.table.params.get(weight, self.float_params[weight]), *ranges.arrays(), ranges.bits)

    def run(self, samples: Samples) -> None:
        """Reconstruct the units of every function, in the order in which samples pass them."""
        plans = self.plans(samples.family)
        self.total = self.effort.iterations * sum(map(len, plans.values()))

        def execute(function: str, inputs: list[tuple]) -> list[tuple]:
            if not plans:
                raise Finished
            return self.function(function, inputs, plans.pop(function, []))

        drive_in_step(list(zip(samples.drivers(), samples.drivers(), strict=True)), execute)

    def plans(self, family: ModelFamily) -> dict[str, list[Unit]]:
        """Return the units of each function that no function before it has."""
        plans: dict[str, list[Unit]] = {}
        planned: set[str] = set()
        for function in family.functions:
            found = units(self.executor.program(function.name), family.unit)
            if not planned.issuperset(unit.name for unit in found):
                plans[function.name] = found
                planned |= {unit.name for unit in found}
        return plans

    def function(self, function: str, inputs: list, plan: list[Unit]) -> list:
        """Reconstruct the blocks of one function; its results on both streams."""
        lockstep = Lockstep(self.executor, function, Streams(Sites(), self.sites), inputs)
        for unit in plan:
            lockstep.streams = Streams(Sites(), self.sites)
            starts = [tuple(list(values) for values in pair) for pair in lockstep.runs]
            finished = self.saved.table(unit.name)
            if finished is not None:
                self.take(finished[0])
                self.results[unit.name] = finished[1]
            else:
                with torch.no_grad():
                    lockstep.advance(unit.first, unit.last)
                self.train(_Block(self, lockstep, unit, starts))
                self.saved.add(unit.name, self.table, self.results[unit.name])
            self.progress("reconstruct: iterations", self.effort.iterations * len(self.results), self.total)
            lockstep.streams = Streams(Sites(), self.sites)
            lockstep.runs = starts
            with torch.no_grad():
                lockstep.advance(unit.first, unit.last)
        with torch.no_grad():
            lockstep.advance(plan[-1].last if plan else 0, len(lockstep.program.steps))
        return [tuple(lockstep.program.result(values) for values in pair) for pair in lockstep.runs]

    def train(self, block: _Block) -> None:
        """Learn one block; keep what came of it if it does better on held-out images."""
        # seeded by the block, so that a run that was taken up goes on as it would have
        torch.manual_seed(zlib.crc32(block.unit.name.encode()))
        before = block.held_out_error(self.sites)
        sites, weights = block.learn()
        changed = dict(self.table.params)
        ranges = dict(self.table.weights)
        for name, quantized in weights.items():
            parameter = self.layers[name].weight
            ranges[parameter] = WeightRange.of(quantized)
            changed[parameter] = quantized.dequantize()
        candidate = replace(self.table, sites={**self.table.sites, **sites}, weights=ranges, params=changed)
        old = self.table
        self.take(candidate)
        after = block.held_out_error(self.sites)
        kept = after < before
        if not kept:
            self.take(old)
        self.results[block.unit.name] = UnitResult(before, after, kept)


class _Block:
    """One block with the values that enter it and those that should leave it, on every image."""

    def __init__(self, run: _Reconstruction, lockstep: Lockstep, unit: Unit, starts: list):
        self.run, self.unit = run, unit
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
        """Relative squared error of the block's output on one image."""
        values = self.mixed(image, drop)
        with using_sites(sites):
            for step in self.steps:
                step.run(values)
        pairs = zip(self.unit.outputs, self.targets[image], self.energy, strict=True)
        return sum((values[slot] - wanted).square().mean() / energy for slot, wanted, energy in pairs)

    def mixed(self, image: int, drop: float) -> list:
        """What enters the block: the quantized stream, elements of the float stream mixed in."""
        plain, quantized = self.starts[image]
        if not drop:
            return list(quantized)
        values = []
        for a, b in zip(plain, quantized, strict=True):
            differ = isinstance(a, torch.Tensor) and a is not b and a.is_floating_point()
            values.append(torch.where(torch.rand(a.shape) < drop, a, b) if differ else b)
        return values

    def held_out_error(self, sites: Sites) -> float:
        """Mean error on the held-out images, everything quantized."""
        with torch.no_grad():
            return float(np.mean([float(self.error(sites, image)) for image in self.held_out]))

    def learn(self) -> tuple[dict[str, QuantizerParams], dict[str, QuantizedWeight]]:
        """Train; the block's new quantizers and weights, hard, by name of site and layer."""
        run, effort = self.run, self.run.effort
        learned = {}
        for name in self.unit.layers:
            target = torch.from_numpy(run.float_params[run.layers[name].weight])
            learned[name] = LearnedWeight.of(run.quantized(name), target)
        own = tuple(site for site in run.table.sites if site.rpartition(".")[0] in self.members())
        sites = TrainableSites(run.table.sites, run.sites.layers, learned, own, effort.drop)
        grouping = _Grouping(self, sites)
        optimiser, count = None, max(1, sum(weight.alpha.numel() for weight in learned.values()))
        done = effort.iterations * len(run.results)
        for iteration in range(effort.iterations):
            if grouping.due(iteration) or optimiser is None:
                optimiser = _optimiser(learned, sites, effort)
            for group in optimiser.param_groups:
                group["lr"] = group["initial"] * 0.5 * (1 + np.cos(np.pi * iteration / effort.iterations))
            loss = self.error(sites, self.seen[iteration % len(self.seen)], effort.drop)
            if penalty_applies(iteration, effort.iterations):
                beta = temperature(iteration, effort.iterations)
                loss = loss + sum(rounding_penalty(w.alpha, beta, effort.penalty / count) for w in learned.values())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            run.progress("reconstruct: iterations", done + iteration, run.total)
        return (
            {site: sites.trained(site) for site in sites.scales},
            {name: weight.hard() for name, weight in learned.items()},
        )

    def members(self) -> set[str]:
        """Layers of the block, and the attentions that they belong to."""
        return {*self.unit.layers, *(name.rpartition(".")[0] for name in self.unit.layers), self.unit.name}


def _optimiser(learned: Mapping[str, LearnedWeight], sites: TrainableSites, effort: Effort) -> torch.optim.Adam:
    groups = [{"params": [w.alpha], "lr": effort.rounding_rate} for w in learned.values()]
    for scale in sites.scales.values():
        groups.append({"params": [scale], "lr": effort.scale_rate * float(scale.detach().abs().mean())})
    optimiser = torch.optim.Adam(groups)
    for group in optimiser.param_groups:
        group["initial"] = group["lr"]
    return optimiser


class _Grouping:
    """Progressive grouping of a block's CAG sites: many groups first, the recipe's number at 60 % of the iterations."""

    def __init__(self, block: _Block, sites: TrainableSites):
        self.sites, self.run = sites, block.run
        limit = block.run.table.recipe.groups
        self.counts = [count for count in block.run.effort.groups if count > limit] + [limit]
        self.places = [round(0.6 * block.run.effort.iterations * i / len(self.counts)) for i in range(len(self.counts))]
        self.cag = [site for site in sites.scales if isinstance(sites.quantizers[site], CagParams)]
        self.rows = _rows(block, self.cag)

    def due(self, iteration: int) -> bool:
        """Regroup if it is time; whether that happened."""
        if iteration not in self.places or not self.cag or len(self.counts) == 1:  # calibration's groups are final
            return False
        # where several fall together (few iterations), the last counts
        place = len(self.places) - 1 - self.places[::-1].index(iteration)
        importance = {layer.site: self.run.float_params[layer.weight] for layer in self.run.layers.values()}
        for site in self.cag:
            weight = importance[site]
            energy = np.square(weight.reshape(len(weight), -1), dtype=np.float64).sum(0)
            if place == 0:
                bits = self.sites.quantizers[site].bits
                params = calibrate_cag(self.rows[site], bits, energy, groups=self.counts[0])
            else:
                trained = self.sites.trained(site)
                assert isinstance(trained, CagParams), "of a CAG site"
                params = regroup_by_error(trained, self.rows[site], self.counts[place], energy)
            self.sites.set_quantizer(site, params)
        return True


class _RowKeeper(FakeQuantSites):
    """Keeps rows of some sites as they come."""

    def __init__(self, base: FakeQuantSites, wanted: Sequence[str]):
        super().__init__(base.quantizers, base.layers)
        self.kept: dict[str, list[np.ndarray]] = {site: [] for site in wanted}

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Keep some rows, and go on."""
        if site in self.kept:
            flat = x.reshape(-1, x.shape[-1])
            self.kept[site].append(flat[torch.randperm(len(flat))[:128]].numpy())
        return super().activation(site, x, activation)


def _rows(block: _Block, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows that pass each of the sites in the quantized stream."""
    keeper = _RowKeeper(block.run.sites, wanted)
    with torch.no_grad():
        for image in block.seen:
            block.error(keeper, image)
    return {site: np.concatenate(rows) for site, rows in keeper.kept.items()}


def _fingerprint(run: _Reconstruction, samples: Samples) -> str:
    """Tells runs apart: start table, float parameters, images and effort."""
    digest = hashlib.sha256(repr((run.table.to_dict(), run.effort)).encode())
    for name in sorted(run.float_params):
        digest.update(np.ascontiguousarray(run.float_params[name]).data)
    for name in sorted(run.table.params):
        digest.update(np.ascontiguousarray(run.table.params[name]).data)
    for sample in samples.inputs:
        digest.update(np.ascontiguousarray(sample).data)
    return digest.hexdigest()
