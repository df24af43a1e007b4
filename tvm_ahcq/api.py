"""``quantize`` and ``compile``: the library's way from a model to a deployable file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress as Bar
from rich.progress import TaskID
from tvm.ir import IRModule

from tvm_ahcq.calibrate.images import load_calibration
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.models.execution import SessionLike
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.progress import Progress
from tvm_ahcq.quantizers.core.float16_storage import round_to_float16
from tvm_ahcq.quantizers.core.recipe import Recipe
from tvm_ahcq.quantizers.core.recipe import recipe as find_recipe
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.equalise import apply_equalisation
from tvm_ahcq.relay_passes.lower.kernel_table import kernel_table
from tvm_ahcq.relay_passes.realise import Realised
from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.manifest import Manifest
from tvm_ahcq.runtime.verify import golden_arrays
from tvm_ahcq.runtime.weights import QLinearWeight
from tvm_ahcq.torch_exec.simulated_session import SimulatedSession
from tvm_ahcq.torch_exec.torch_session import TorchSession
from tvm_ahcq.tune.records import DEFAULTS, Tuning

from . import pipeline
from .errors import QuantTableError, RecipeError, UnsupportedModelError
from .export_library import function_specs, target_spec
from .target import HostTarget, link_options, resolve_targets

CALIBRATION_IMAGES = 32
"""Most images that calibration uses."""

EFFORTS = ("default", "high")


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """A model with a quantizer for each site, ready to simulate or to compile.

    Attributes
    ----------
    model : FloatModel
        The float model.
    annotated : tvm.IRModule
        Its graph with quantization sites.
    table : QuantTable
        Quantizers of sites and weights; may be saved, edited, and given to :func:`quantize` again.
    times : tuple of PhaseTime
        Phases that made it, with their times.
    """

    model: FloatModel
    annotated: IRModule
    table: QuantTable
    times: tuple[pipeline.PhaseTime, ...] = ()

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """The prepared model's parameters, with those in place that conditioning and rounding changed, and large ones
        that stay in float rounded to what a bundle stores of them."""
        return round_to_float16({**self.prepared.params, **self.table.changed_params()}, self.table.weights)

    @cached_property
    def coded_table(self) -> QuantTable:
        """The table with codes for every weight."""
        return self.table.with_codes(self.prepared.params)

    @cached_property
    def prepared(self) -> FloatModel:
        """The float model after equalisation: the same function, the parameters that quantizers were found for."""
        model = self.model
        params = apply_equalisation(model.params, self.table.equalisation, model.family.exchanges(model.params))
        return replace(model, params=params)

    @cached_property
    def _realised(self) -> Realised:
        return self.realise("vnni16")

    def realise(self, layout: str) -> Realised:
        """Integer graph with weights packed in `layout`.

        Raises
        ------
        UnsupportedModelError
            If a quantization site could not be put on integers.
        """
        return pipeline.realise_all(self.annotated, self.params, self.coded_table, layout)

    @property
    def sites(self) -> tuple[int, int]:
        """Quantization sites on integers, and in all."""
        return self._realised.covered, self._realised.total

    def fake_quant_session(self) -> SessionLike:
        """Session that simulates the quantized model in torch; codes equal those of the compiled module."""
        return SimulatedSession(self.model.spec, self.annotated, self.params, self.coded_table)

    def fake_quant_predictor(self) -> Any:
        """Predictor that simulates the quantized model in torch; codes equal those of the compiled module."""
        return self.model.family.predictor(self.fake_quant_session())

    def float_predictor(self) -> Any:
        """Predictor that runs the float model in torch."""
        return float_predictor(self.model)


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A compiled model in memory; :meth:`save` writes the deployable file.

    Attributes
    ----------
    manifest : Manifest
        What the bundle says about itself.
    libraries : dict of str to bytes
        For each target, by its name: shared library with code and virtual-machine program.
    tensors : dict
        Parameter records by name.
    golden : dict of str to numpy.ndarray
        Inputs and outputs of the self-check, made by a reference in torch.
    times : tuple of PhaseTime
        Phases that made it, with their times.
    """

    manifest: Manifest
    libraries: dict[str, bytes] = field(repr=False)
    tensors: dict[str, np.ndarray | QLinearWeight] = field(repr=False)
    golden: dict[str, np.ndarray] = field(repr=False)
    times: tuple[pipeline.PhaseTime, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> Manifest:
        """Write the bundle; an older file at `path` stays whole until the new one is complete.

        Raises
        ------
        BundleError
            If the file cannot be written.
        """
        return write_bundle(path, self.manifest, self.libraries, self.tensors, self.golden)


def float_session(model: FloatModel) -> SessionLike:
    """Session that runs a float model in torch."""
    return TorchSession(model.spec, model.module, model.params)


def float_predictor(model: FloatModel) -> Any:
    """Predictor that runs a float model in torch."""
    return model.family.predictor(float_session(model))


def quantize(
    model: FloatModel,
    calibration: str | os.PathLike[str] | Iterable[Any] | QuantTable,
    recipe: Recipe | str | None = None,
    progress: bool | Progress = False,
    dump_dir: str | os.PathLike[str] | None = None,
    effort: str = "default",
    work_dir: str | os.PathLike[str] | None = None,
) -> QuantizedModel:
    """Find a quantizer for every site of a model.

    Parameters
    ----------
    model : FloatModel
        From :func:`tvm_ahcq.from_sam`.
    calibration : path, iterable or QuantTable
        A folder or an iterable of pictures (paths, PIL images, ``(H, W, 3)`` uint8 arrays), of which at most 32 are
        used; for a model that tracks, clips ``(T, H, W, 3)`` as well; or a table from an earlier run.
    recipe : Recipe or str, optional
        Default: recipe "ahcq" at 4 bits, or the table's own.
    progress : bool or callable
        True shows a bar; a callable is told (what, steps done, steps in all).
    dump_dir : path, optional
        Folder where the module is written after each phase.
    effort : {"default", "high"}
        "default" rounds weights with error compensation, in minutes; "high" then learns, block by block.
    work_dir : path, optional
        Folder where "high" saves finished blocks; the same call goes on from there after a kill.

    Returns
    -------
    QuantizedModel

    Raises
    ------
    CalibrationError
        If there are no readable pictures.
    QuantTableError
        If a given table belongs to another model.
    RecipeError
        If the recipe is unknown.
    """
    if effort not in EFFORTS:
        raise RecipeError(f"effort is {effort!r}; expected one of {', '.join(EFFORTS)}.")
    state = pipeline.State(model, params=dict(model.params), effort=effort)
    if isinstance(calibration, QuantTable):
        if calibration.model != model.name:
            raise QuantTableError(f"The quantization table was made for {calibration.model!r}, not for {model.name!r}.")
        state.recipe, state.table = calibration.recipe, calibration
    else:
        state.recipe = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "ahcq")
        state.samples = Samples(model.spec, list(load_calibration(calibration, model.spec, CALIBRATION_IMAGES)))
    state.work_dir = None if work_dir is None else Path(work_dir)
    with _reporter(progress) as state.progress:
        pipeline.run(pipeline.QUANTIZE, state, None if dump_dir is None else Path(dump_dir))
    assert state.module is not None and state.table is not None
    return QuantizedModel(model, state.module, state.table, tuple(state.times))


def compile(
    model: FloatModel | QuantizedModel,
    target: str | HostTarget | Sequence[HostTarget] = "native",
    dump_dir: str | os.PathLike[str] | None = None,
    tuning: str | os.PathLike[str] | None = None,
    accelerator: str | None = None,
    offload: str = "auto",
    chain: bool = False,
) -> CompiledModel:
    """Compile a model for a processor.

    Parameters
    ----------
    model : QuantizedModel or FloatModel
        Quantized, or a float model (for comparison).
    target : str, HostTarget or sequence of HostTarget
        "native" for this machine, "generic" for any of its kind; see :func:`tvm_ahcq.target.target_names`. Several, as
        in "amx,avx2": the bundle holds a library for each, and weights once; the best one that a machine can run is
        chosen when it is loaded.
    dump_dir : path, optional
        Folder where the module is written after each phase.
    tuning : path, optional
        Folder that :func:`tvm_ahcq.tune.host.tuner.tune` or :func:`tvm_ahcq.tune.accelerator.tuner.tune_tiles` wrote;
        kernels and operators that it has no records of keep their defaults.
    accelerator : str, optional
        Configuration of an accelerator, as named in ``configs.yaml``: what is faster there becomes programs for it, in
        the same bundle. Each target's library holds them.
    offload : {"auto", "all"}
        With an accelerator: what it does sooner than the processor of a small board, or all that it can do.
    chain : bool
        With an accelerator: keep the codes between the two layers of an MLP there. Less traffic; but masks can differ a
        little from those of the host alone, which are otherwise equal in every bit.

    Returns
    -------
    CompiledModel

    Raises
    ------
    DeviceError
        If there is no such accelerator, or `offload` is neither.
    TargetError
        If a target is unknown, or needs a linker that is not installed.
    TuningError
        If there are no records in `tuning`, or one of them cannot be used.
    UnsupportedModelError
        If a quantization site could not be put on integers.
    """
    hosts = _hosts(target)
    if accelerator is not None:
        _check_accelerator(model, accelerator, offload)
    records = None if tuning is None else Path(tuning)
    state = _state(model)
    state.hosts = hosts
    state.tuning = DEFAULTS if records is None else DEFAULTS.updated(Tuning.read(records))
    if accelerator is not None:
        state.offload = pipeline.Offload(accelerator, offload, chain, records)
    phases = pipeline.COMPILE if isinstance(model, QuantizedModel) else (pipeline.QUANTIZE[0], *pipeline.COMPILE)
    pipeline.run(phases, state, None if dump_dir is None else Path(dump_dir))
    reference = model.fake_quant_session() if isinstance(model, QuantizedModel) else float_session(model)
    golden = golden_arrays(state.model.family, reference)
    return CompiledModel(_manifest(state), state.libraries, state.tensors, golden, tuple(state.times))


def _state(model: FloatModel | QuantizedModel) -> pipeline.State:
    """Return a model as the pipeline takes it up for compilation."""
    if isinstance(model, QuantizedModel):
        return pipeline.State(
            model.model,
            recipe=model.table.recipe,
            module=model.annotated,
            params=model.params,
            table=model.coded_table,
        )
    tensors: dict[str, np.ndarray | QLinearWeight] = dict(model.params)
    return pipeline.State(model, tensors=tensors, function_params=model.function_params)


def _manifest(state: pipeline.State) -> Manifest:
    """Return the manifest of a compiled model."""
    layout = state.hosts[0].layout
    first, *others = (target_spec(host, len(state.hosts) > 1) for host in state.hosts)
    described = Manifest(
        model=state.model.spec,
        target=first,
        functions=function_specs(state.modules.get(layout, state.module), state.function_params),
        others=tuple(others),
        accelerator=None if state.report is None else state.report.to_dict(),
        kernels={name: kernel_table(lowered) for name, lowered in state.lowered.items()},
    )
    if state.recipe is None:
        return described
    realised = state.realised[layout]
    return replace(
        described,
        recipe=state.recipe.to_dict(),
        bits=state.recipe.bits_activations,
        sites=(realised.covered, realised.total),
    )


def _hosts(target: str | HostTarget | Sequence[HostTarget]) -> tuple[HostTarget, ...]:
    """Return the targets, once they can be linked here."""
    if isinstance(target, str):
        hosts = resolve_targets(target)
    else:
        hosts = (target,) if isinstance(target, HostTarget) else tuple(target)
    for host in hosts:
        link_options(host)  # refused before minutes of work
    return hosts


def _check_accelerator(model: FloatModel | QuantizedModel, accelerator: str, offload: str) -> None:
    """Refused before minutes of work: an unknown configuration, and a model that has nothing for it."""
    from tvm_ahcq.codegen.cost import CostModel
    from tvm_ahcq.codegen.isa.config import named

    named(accelerator)
    CostModel.named(offload)
    if not isinstance(model, QuantizedModel):
        raise UnsupportedModelError("An accelerator runs quantized models; quantize() this one first.")


@contextmanager
def _reporter(wanted: bool | Progress) -> Iterator[Progress]:
    """A progress callable: the user's own, a bar on the terminal, or one that does nothing."""
    if callable(wanted):
        yield wanted
    elif not wanted:
        yield lambda *_: None
    else:
        with Bar(transient=True) as bar:
            tasks: dict[str, TaskID] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what)
                bar.update(tasks[what], completed=done, total=total)

            yield report
