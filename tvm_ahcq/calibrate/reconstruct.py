"""Phase 5, high effort: unit-wise reconstruction with gradients, after error-compensated rounding.

Unit by unit (a block, or what the model describes as one), the rounding of its weights and the scales of its
activations are learned (:mod:`.train_unit`) so that, on quantized inputs, it gives what the float unit gives on float
ones. A result is used only where it does better on images that training has not seen. Finished units are saved, so a
run that was killed resumes after the last of them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tvm.ir import IRModule

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.models.description import ModelFamily
from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.relay_passes.annotate import layers
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.lockstep import Finished, Lockstep, Streams, Unit, drive_in_step, units
from tvm_ahcq.torch_exec.simulate import Sites, exact_layer_norm

from .resume import FinishedUnits, UnitResult
from .samples import Samples
from .train_unit import Effort, StreamState, UnitData, train_unit

__all__ = ["Effort", "Reconstruction", "reconstruct"]


@dataclass(frozen=True)
class Reconstruction:
    """The new table, and each unit's result by its name."""

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
    """Learn the rounding and the scales of every unit.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    table : QuantTable
        From :func:`.calibrate.calibrate` or :func:`.round_weights.round_weights`.
    samples : Samples
        Calibration samples; at least 2, every fourth is held out.
    effort : Effort, optional
        How long to learn.
    progress : callable
        Told of iterations, over all units.
    work_dir : Path, optional
        Folder where finished units are saved; a run that was killed resumes from there.

    Raises
    ------
    CalibrationError
        If there are fewer than 2 samples.
    QuantTableError
        If the folder holds another run.
    """
    if len(samples) < 2:
        raise CalibrationError(f"Reconstruction needs 2 images or more, one to check itself on; got {len(samples)}.")
    run = _Run(mod, params, table, effort or Effort(), progress)
    run.saved = FinishedUnits.open(work_dir, _fingerprint(run, samples))
    with torch.random.fork_rng(devices=[]):
        run.run(samples)
    return Reconstruction(run.table, run.results)


class _Run:
    """State of one run over all units."""

    def __init__(
        self, mod: IRModule, params: Mapping[str, np.ndarray], table: QuantTable, effort: Effort, progress: Progress
    ):
        self.float_params = params
        self.executor = TorchExecutor(mod, params, {"relax.nn.layer_norm": exact_layer_norm})
        self.layers = layers(mod)
        self.effort, self.progress = effort, progress
        self.results: dict[str, UnitResult] = {}
        self.saved = FinishedUnits(None, {})
        self.use(table)

    def use(self, table: QuantTable) -> None:
        """Continue with `table`."""
        self.table = table
        self.state = StreamState.of(table.with_codes(self.float_params), self.layers)

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
        """Return the units of each function that no function before it has; layers in float are in none."""

        def unit_of(layer: str) -> str | None:
            return family.unit(layer) if layer in self.layers else None

        plans: dict[str, list[Unit]] = {}
        planned: set[str] = set()
        present = {var.name_hint for var in self.executor.module.get_global_vars()}
        for function in (each for each in family.functions if each.name in present):
            function_units = units(self.executor.program(function.name), unit_of)
            if not planned.issuperset(unit.name for unit in function_units):
                plans[function.name] = function_units
                planned |= {unit.name for unit in function_units}
        return plans

    def function(self, function: str, inputs: list, plan: list[Unit]) -> list:
        """Reconstruct the units of one function; return its results on both streams."""
        lockstep = Lockstep(self.executor, function, Streams(Sites(), self.state.sites), inputs)
        for unit in plan:
            starts = [tuple(list(values) for values in pair) for pair in lockstep.runs]
            self.unit(unit, lockstep, starts)
            self.progress("reconstruct: iterations", self.effort.iterations * len(self.results), self.total)
            lockstep.streams = Streams(Sites(), self.state.sites)
            lockstep.runs = starts
            with torch.no_grad():
                lockstep.advance(unit.first, unit.last)
        with torch.no_grad():
            lockstep.advance(plan[-1].last if plan else 0, len(lockstep.program.steps))
        return [tuple(lockstep.program.result(values) for values in pair) for pair in lockstep.runs]

    def unit(self, unit: Unit, lockstep: Lockstep, starts: list) -> None:
        """Take a finished unit from the folder, or train it and save it there."""
        finished = self.saved.table(unit.name)
        if finished is not None:
            table, self.results[unit.name] = finished
            self.use(table)
            return
        with torch.no_grad():
            lockstep.advance(unit.first, unit.last)
        self.train(UnitData(lockstep, unit, starts))
        self.saved.add(unit.name, self.table, self.results[unit.name])

    def train(self, data: UnitData) -> None:
        """Train one unit; use the result if it does better on held-out images."""
        # seeded by the unit, so that a run that resumes continues as it would have
        torch.manual_seed(zlib.crc32(data.unit.name.encode()))
        start, done = self.table, self.effort.iterations * len(self.results)
        before = data.held_out_error(self.state.sites)

        def progress(iteration: int) -> None:
            self.progress("reconstruct: iterations", done + iteration, self.total)

        trained = train_unit(data, self.state, self.float_params, self.effort, progress)
        self.use(replace(start.with_rounded(trained.weights), sites={**start.sites, **trained.sites}))
        after = data.held_out_error(self.state.sites)
        improved = after < before
        if not improved:
            self.use(start)
        self.results[data.unit.name] = UnitResult(before, after, improved)


def _fingerprint(run: _Run, samples: Samples) -> str:
    """Return a hash of what a run depends on: table, float parameters, images and effort."""
    digest = hashlib.sha256(repr((run.table.to_dict(), run.effort)).encode())
    changed = run.table.changed_params()
    for params in (run.float_params, changed):
        for name in sorted(params):
            digest.update(np.ascontiguousarray(params[name]).data)
    for sample in samples.inputs:
        digest.update(np.ascontiguousarray(sample).data)
    return digest.hexdigest()
