"""The state of a model in the pipeline: inputs, options, and the results of the phases so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tvm.ir import IRModule

from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.core.recipe import Recipe
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.relay_passes.realise import Realised
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.weights import QLinearWeight
from tvm_ahcq.target import HostTarget
from tvm_ahcq.tune.records import DEFAULTS, Tuning


@dataclass(frozen=True)
class PhaseTime:
    """Duration of a phase.

    Attributes
    ----------
    name, action : str
        As in :class:`.Phase`.
    seconds : float
        Wall-clock time.
    """

    name: str
    action: str
    seconds: float


@dataclass(frozen=True)
class Offload:
    """Options of the accelerator; see :func:`tvm_ahcq.compile`."""

    config: str
    policy: str = "auto"
    chain: bool = False
    tuning: Path | None = None


@dataclass
class State:
    """A model on its way through the pipeline: inputs, options, and the results of the phases so far.

    Attributes
    ----------
    model : FloatModel
        The float model.
    recipe : Recipe or None
        None: the model stays in float.
    samples : Samples or None
        Calibration samples; None where a table is given.
    effort : {"default", "high"}
        "high" adds block reconstruction.
    work_dir : Path or None
        Where block reconstruction saves finished units.
    progress : callable
        Told of every step of calibration.
    hosts : sequence of HostTarget
        Processors to compile for.
    tuning : Tuning
        Schedules of kernels.
    offload : Offload or None
        What the accelerator runs; None: nothing.
    module : tvm.IRModule or None
        Canonical, then annotated module.
    params : dict of str to numpy.ndarray
        Float parameters, equalised from that phase on.
    conditioned : dict of str to numpy.ndarray
        Weights that conditioning changed.
    table : QuantTable or None
        Quantizers of sites and weights.
    realised : dict of str to Realised
        Integer module by layout of packed weights.
    modules : dict of str to tvm.IRModule
        Module to lower, by layout.
    lowered : dict of str to tvm.IRModule
        Module of kernels, by name of the host.
    tensors : dict
        Records that the functions take, by name.
    function_params : mapping of str to list of str
        Names of the records of each function, in order.
    report : OffloadReport or None
        Decision for every operator.
    libraries : dict of str to bytes
        Shared library of each host.
    times : list of PhaseTime
        Phases that were run.
    """

    model: FloatModel
    recipe: Recipe | None = None
    samples: Samples | None = None
    effort: str = "default"
    work_dir: Path | None = None
    progress: Progress = silent
    hosts: Sequence[HostTarget] = ()
    tuning: Tuning = DEFAULTS
    offload: Offload | None = None
    module: IRModule | None = None
    params: dict[str, np.ndarray] = field(default_factory=dict)
    conditioned: dict[str, np.ndarray] = field(default_factory=dict)
    table: QuantTable | None = None
    realised: dict[str, Realised] = field(default_factory=dict)
    modules: dict[str, IRModule] = field(default_factory=dict)
    lowered: dict[str, IRModule] = field(default_factory=dict)
    tensors: dict[str, np.ndarray | QLinearWeight] = field(default_factory=dict)
    function_params: Mapping[str, list[str]] = field(default_factory=dict)
    report: OffloadReport | None = None
    libraries: dict[str, bytes] = field(default_factory=dict)
    times: list[PhaseTime] = field(default_factory=list)

    @property
    def layouts(self) -> tuple[str, ...]:
        """Layouts of packed weights that the hosts take, without repetition."""
        return tuple(dict.fromkeys(host.layout for host in self.hosts))

    @property
    def float_params(self) -> dict[str, np.ndarray]:
        """Float parameters with conditioned weights in place."""
        return {**self.params, **self.conditioned}

    def chosen(self) -> Recipe:
        """Return the recipe of a model that is quantized."""
        assert self.recipe is not None
        return self.recipe

    def calibration(self) -> Samples:
        """Return the samples of a model whose quantizers have to be found."""
        assert self.samples is not None
        return self.samples
