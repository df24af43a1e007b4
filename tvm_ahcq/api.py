"""``quantize`` and ``compile``: the library's way from a model to a deployable file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from tvm_ahcq.models.description import FloatModel, ModelSpec
from tvm_ahcq.models.execution import SessionLike
from tvm_ahcq.progress import Progress
from tvm_ahcq.quantizers.core.float16_storage import round_to_float16
from tvm_ahcq.quantizers.core.recipe import Recipe
from tvm_ahcq.quantizers.core.recipe import recipe as find_recipe
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.equalise import apply_equalisation
from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.manifest import Manifest
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.verify import golden_arrays
from tvm_ahcq.runtime.weights import QLinearWeight
from tvm_ahcq.torch_exec.simulated_session import SimulatedSession
from tvm_ahcq.torch_exec.torch_session import TorchSession
from tvm_ahcq.tune.records import DEFAULTS, Tuning

from .errors import QuantTableError, RecipeError, UnsupportedModelError
from .export_library import export_library, function_specs, target_spec
from .relay_passes import pipeline
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
    """

    model: FloatModel
    annotated: IRModule
    table: QuantTable

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
    def _realised(self) -> pipeline.Realised:
        return self.realise("vnni16")

    def realise(self, layout: str) -> pipeline.Realised:
        """Integer graph with weights packed in `layout`.

        Raises
        ------
        UnsupportedModelError
            If a quantization site could not be put on integers.
        """
        realised = pipeline.realise(self.annotated, self.params, self.coded_table, layout)
        if realised.missing:
            raise UnsupportedModelError(
                f"only {realised.covered}/{realised.total} quantization sites are on integers; left in float: "
                f"{', '.join(realised.missing[:5])}. The graph has a pattern that the passes do not know."
            )
        return realised

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
        Self-check pair, made by a reference in torch.
    """

    manifest: Manifest
    libraries: dict[str, bytes] = field(repr=False)
    tensors: dict[str, np.ndarray | QLinearWeight] = field(repr=False)
    golden: dict[str, np.ndarray] = field(repr=False)

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
        used; or a table from an earlier run.
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
    folder = None if dump_dir is None else Path(dump_dir)
    if isinstance(calibration, QuantTable):
        chosen = calibration.recipe
        if calibration.model != model.name:
            raise QuantTableError(f"The quantization table was made for {calibration.model!r}, not for {model.name!r}.")
    else:
        chosen = find_recipe(recipe or "ahcq") if recipe is None or isinstance(recipe, str) else recipe
    module = pipeline.canonicalise(pipeline.name_parameters(model.module, model.function_params))
    pipeline.dump(module, "1-canonical", folder)
    module = pipeline.annotate(module, chosen, model.family)
    pipeline.dump(module, "2-annotated", folder)
    if isinstance(calibration, QuantTable):
        return QuantizedModel(model, module, calibration)
    samples = Samples(model.spec, list(load_calibration(calibration, model.spec, CALIBRATION_IMAGES)))
    with _reporter(progress) as report:
        table = pipeline.quantizers(
            module,
            model.params,
            samples,
            chosen,
            effort=effort,
            progress=report,
            work_dir=None if work_dir is None else Path(work_dir),
        )
    return QuantizedModel(model, module, table)


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
    family = (model.model if isinstance(model, QuantizedModel) else model).family
    hosts = _hosts(target)
    if accelerator is not None:
        _check_accelerator(model, accelerator, offload)
    tuned = DEFAULTS if tuning is None else DEFAULTS.updated(Tuning.read(tuning))
    folder = None if dump_dir is None else Path(dump_dir)
    if isinstance(model, QuantizedModel):
        records = None if tuning is None else Path(tuning)
        form = _quantized_form(model, hosts, accelerator, offload, chain, folder, records)
    else:
        form = _float_form(model, hosts)
    libraries = {}
    for host in hosts:
        libraries[host.name] = export_library(pipeline.build(form.modules[host.layout], host, folder, tuned), host)
    first, *others = (target_spec(host, len(hosts) > 1) for host in hosts)
    manifest = Manifest(
        model=form.spec,
        target=first,
        functions=function_specs(form.modules[hosts[0].layout], form.function_params),
        recipe=form.recipe,
        bits=form.bits,
        sites=form.sites,
        others=tuple(others),
        accelerator=None if form.report is None else form.report.to_dict(),
    )
    return CompiledModel(manifest, libraries, form.tensors, golden_arrays(family, form.reference))


@dataclass(frozen=True)
class _Form:
    """What a model has become before code is made of it: a module for each layout of weights, and the rest once."""

    spec: ModelSpec
    modules: dict[str, IRModule]
    tensors: dict[str, np.ndarray | QLinearWeight]
    function_params: Mapping[str, list[str]]
    reference: SessionLike
    recipe: dict[str, Any] = field(default_factory=dict)
    bits: int = 32
    sites: tuple[int, int] = (0, 0)
    report: OffloadReport | None = None


def _float_form(model: FloatModel, hosts: Sequence[HostTarget]) -> _Form:
    module = pipeline.canonicalise(pipeline.name_parameters(model.module, model.function_params))
    modules = {host.layout: module for host in hosts}
    return _Form(model.spec, modules, dict(model.params), model.function_params, float_session(model))


def _quantized_form(
    model: QuantizedModel,
    hosts: Sequence[HostTarget],
    accelerator: str | None,
    offload: str,
    chain: bool,
    folder: Path | None,
    tuning: Path | None,
) -> _Form:
    """On integers, and partly on the accelerator, if there is one."""
    realised = {layout: model.realise(layout) for layout in dict.fromkeys(host.layout for host in hosts)}
    first, recipe = realised[hosts[0].layout], model.table.recipe
    pipeline.dump(first.module, "6-realised", folder)
    form = _Form(
        model.model.spec,
        {layout: each.module for layout, each in realised.items()},
        first.tensors,
        first.function_params,
        model.fake_quant_session(),
        recipe.to_dict(),
        recipe.bits_activations,
        (first.covered, first.total),
    )
    if accelerator is None:
        return form
    parts = {layout: pipeline.partition(each, accelerator, offload, chain, tuning) for layout, each in realised.items()}
    part = parts[hosts[0].layout]
    pipeline.dump(part.module, "7-partitioned", folder)
    kept = {name for names in part.function_params.values() for name in names}
    return replace(
        form,
        modules={layout: each.module for layout, each in parts.items()},
        tensors={name: tensor for name, tensor in first.tensors.items() if name in kept},
        function_params=part.function_params,
        report=part.report,
    )


def _hosts(target: str | HostTarget | Sequence[HostTarget]) -> tuple[HostTarget, ...]:
    """What was asked for, as targets that can be linked here."""
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
