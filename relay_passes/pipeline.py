"""The compiler's table of contents: every phase from an imported model to an executable, in order.

| phase | pass | file |
|---|---|---|
| 1 | canonicalise: named linear layers, convolutions, attention | ``canonicalise.py`` |
| 2 | annotate: quantization sites | ``annotate.py`` |
| 3 | equalise, absorb: the same function, kinder to quantizers | ``equalise.py``, ``absorb.py`` |
|   | calibrate: a quantizer for each site, ranges for each weight | ``calibrate.py`` |
| 4 | condition: ACNR | ``condition.py``; or while rounding |
| 5 | round: error-compensated codes | ``round.py`` |
|   | reconstruct: learned rounding and scales, block by block | ``reconstruct.py`` |
| 6 | realise: integer operators, coded weights | ``realise.py`` |
| 7 | partition: what the accelerator runs, if there is one | ``partition.py`` |
| 8 | lower: transposes and position encodings made cheap | ``sink_transposes.py``, ``factor_position_encodings.py`` |
|   | legalise, fuse, schedule: kernels | ``legalise.py``, ``fuse.py``, ``schedule.py`` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_ahcq.calibrate.calibrate import calibrate
from tvm_ahcq.calibrate.condition import condition
from tvm_ahcq.calibrate.equalise import equalise
from tvm_ahcq.calibrate.fold_key_signs import fold_key_signs
from tvm_ahcq.calibrate.reconstruct import reconstruct
from tvm_ahcq.calibrate.recorder import observe
from tvm_ahcq.calibrate.round_weights import round_weights
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.core.recipe import Recipe
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.equalise import apply_equalisation
from tvm_ahcq.relay_passes.lower.factor_position_encodings import factor_position_encodings
from tvm_ahcq.relay_passes.lower.legalise import legalise
from tvm_ahcq.relay_passes.lower.schedule import schedule_pass
from tvm_ahcq.relay_passes.lower.sink_transposes import sink_transposes
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.weights import QLinearWeight
from tvm_ahcq.target import HostTarget
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.tune.records import DEFAULTS, Tuning

from .annotate import annotate
from .canonicalise import canonicalise
from .realise import Realised, realise
from .rewrite import PARAM_NAMES

__all__ = [
    "Realised",
    "annotate",
    "build",
    "canonicalise",
    "dump",
    "legalise",
    "name_parameters",
    "partition",
    "quantizers",
    "realise",
]

EQUALISING_IMAGES = 4
"""Images that equalisation looks at."""

LEARNING_IMAGES, LEARNING_PIXELS = 16, 1 << 22
"""Most images that layers are conditioned and rounded on, and most pixels of them all (4 images of 1024 x 1024): their
activations are in memory together."""

LAYOUT_ONLY = ["relax.reshape"]
"""Not legalised: at run time they are views."""


def name_parameters(mod: IRModule, function_params: Mapping[str, Sequence[str]]) -> IRModule:
    """Attach the stable names of each function's parameters, which the passes read."""
    result = IRModule(dict(mod.functions), attrs=mod.attrs)
    for name, names in function_params.items():
        result[name] = mod[name].with_attr(PARAM_NAMES, list(names))
    return result


def quantizers(
    mod: IRModule,
    params: Mapping[str, np.ndarray],
    samples: Samples,
    recipe: Recipe,
    *,
    effort: str = "default",
    progress: Progress = silent,
    work_dir: Path | None = None,
) -> QuantTable:
    """Phases 3 to 5: the quantizers of an annotated module and the parameters that it will run with.

    Parameters
    ----------
    mod : tvm.IRModule
        Annotated.
    params : mapping of str to numpy.ndarray
        Float parameters.
    samples : Samples
        Calibration samples.
    recipe : Recipe
        Choices.
    effort : {"default", "high"}
        "high" adds block reconstruction.
    progress : callable
        Told of every step.
    work_dir : Path, optional
        Where reconstruction saves finished blocks, to resume after a kill.
    """
    family = samples.family
    exchanges, pixels = family.exchanges(params), family.input_range(samples.spec)
    changes: dict[str, np.ndarray] = {}
    if recipe.equalise or recipe.bimodal:
        recorder = observe(TorchExecutor(mod, params), samples.first(EQUALISING_IMAGES), progress)
        if recipe.bimodal:
            erases = "zero_sign" in recipe.faults
            changes |= fold_key_signs(mod, params, recorder, family.foldable_signs, erases)
        if recipe.equalise:
            changes |= equalise(mod, apply_equalisation(params, changes, exchanges), recorder, exchanges)
        params = apply_equalisation(params, changes, exchanges)
        del recorder
    table = calibrate(mod, params, samples, recipe, progress=progress, pixels=pixels)
    learning, conditioned = samples.first(_learning_samples(samples)), {}
    if recipe.conditioning == "published":
        weights = condition(mod, params, table, learning, progress)
        conditioned = {name: weight.weight for name, weight in weights.items()}
        table = calibrate(mod, {**params, **conditioned}, samples, recipe, progress=progress, pixels=pixels)
    table = replace(table, params=conditioned, equalisation=changes)
    if recipe.rounding == "compensated":
        table = round_weights(mod, {**params, **conditioned}, table, learning, progress).table
    if effort == "high":
        table = reconstruct(mod, {**params, **conditioned}, table, samples, progress=progress, work_dir=work_dir).table
    return table


def _learning_samples(samples: Samples) -> int:
    pixels = samples.inputs[0].shape[-1] * samples.inputs[0].shape[-2] if samples else 1
    return max(2, min(LEARNING_IMAGES, LEARNING_PIXELS // pixels))


@dataclass(frozen=True)
class Offloaded:
    """A realised module whose operators are partly on the accelerator.

    Attributes
    ----------
    module : tvm.IRModule
        With calls to the accelerator.
    function_params : dict
        Names of the records that each function still takes, in order.
    report : OffloadReport
        Where every operator went.
    """

    module: IRModule
    function_params: dict[str, list[str]]
    report: OffloadReport


def partition(
    realised: Realised, config: str, offload: str = "auto", chain: bool = False, tuning: Path | None = None
) -> Offloaded:
    """Phase 7: move what is faster there to the accelerator `config`, with the tiles that were recorded in `tuning`.

    Raises
    ------
    DeviceError
        If there is no such configuration, or `offload` is not "auto" or "all".
    TuningError
        If a recorded tile cannot be used.
    """
    # imported here: what compiles for the host alone needs neither the code generator nor the runtime library
    from tvm_ahcq.codegen.cost import CostModel
    from tvm_ahcq.codegen.isa.config import named
    from tvm_ahcq.tune.accelerator.records import best_tiles

    from .partition import partition_for_ahcq

    params: dict[str, np.ndarray | QLinearWeight] = {}
    records: dict[str, list[tuple[str, list[str]]]] = {}
    for function, names in realised.function_params.items():
        flat = iter(map(str, realised.module[function].attrs[PARAM_NAMES]))
        records[function] = []
        for name in names:
            tensor = realised.tensors[name]
            parts = [next(flat) for _ in range(3 if isinstance(tensor, QLinearWeight) else 1)]  # packed, scales
            params[parts[0]] = tensor
            records[function].append((name, parts))
    tiles = {} if tuning is None else best_tiles(tuning, named(config))
    found = partition_for_ahcq(realised.module, config, params, CostModel.named(offload), chain, tiles)
    left = {function: set(map(str, found.module[function].attrs[PARAM_NAMES])) for function in records}
    kept = {
        function: [name for name, parts in named if left[function].issuperset(parts)]
        for function, named in records.items()
    }
    return Offloaded(found.module, kept, found.report)


def dump(mod: IRModule, phase: str, folder: Path | None) -> None:
    """Write `mod` as TVMScript (constants left out) to ``folder/<phase>.py``, if there is a folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{phase}.py").write_text(mod.script(show_meta=False), encoding="utf-8")


def build(
    mod: IRModule, target: HostTarget, dump_dir: Path | None = None, tuning: Tuning = DEFAULTS
) -> tvm.runtime.Executable:
    """Compile a realised (or canonical float) module for a host.

    Parameters
    ----------
    mod : tvm.IRModule
        Integer or float Relax functions.
    target : HostTarget
        Processor.
    dump_dir : Path, optional
        Where the module is written after each phase.
    tuning : Tuning
        Schedules that were found to be better than the defaults.

    Returns
    -------
    tvm.runtime.Executable
        With the functions of `mod` as entry points.
    """
    mod = legalise(factor_position_encodings(sink_transposes(mod)), target, tuning)
    dump(mod, "8-legalised", dump_dir)
    return relax.build(mod, target=target.tvm_target(), relax_pipeline=_lowering(), tir_pipeline="default")


def _lowering() -> tvm.transform.Pass:
    """TVM's CPU pipeline without ``RewriteDataflowReshape`` (it breaks symbolic shapes); reshapes stay views."""
    return tvm.transform.Sequential(
        [
            relax.transform.CanonicalizeBindings(),
            relax.transform.LegalizeOps(skip_ops=LAYOUT_ONLY),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            schedule_pass,
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )
