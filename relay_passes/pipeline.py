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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_ahcq.relay_passes.lower.factor_position_encodings import factor_position_encodings
from tvm_ahcq.relay_passes.lower.legalise import legalise
from tvm_ahcq.relay_passes.lower.schedule import schedule_pass
from tvm_ahcq.relay_passes.lower.sink_transposes import sink_transposes
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.weights import QLinearWeight
from tvm_ahcq.target import HostTarget
from tvm_ahcq.tune.records import DEFAULTS, Tuning

from .annotate import annotate
from .canonicalise import canonicalise
from .realise import Realised, realise
from .rewrite import PARAM_NAMES

__all__ = [
    "Realised",
    "annotate",
    "canonicalise",
    "generate_code",
    "legalise",
    "lower",
    "name_parameters",
    "partition",
    "realise",
]

LAYOUT_ONLY = ["relax.reshape"]
"""Not legalised: at run time they are views."""


def name_parameters(mod: IRModule, function_params: Mapping[str, Sequence[str]]) -> IRModule:
    """Attach the stable names of each function's parameters, which the passes read."""
    result = IRModule(dict(mod.functions), attrs=mod.attrs)
    for name, names in function_params.items():
        result[name] = mod[name].with_attr(PARAM_NAMES, list(names))
    return result


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


def lower(mod: IRModule, target: HostTarget, tuning: Tuning = DEFAULTS) -> IRModule:
    """Select kernels for a realised (or canonical float) module.

    Parameters
    ----------
    mod : tvm.IRModule
        Integer or float Relax functions.
    target : HostTarget
        Processor.
    tuning : Tuning
        Schedules that replace the defaults.
    """
    return legalise(factor_position_encodings(sink_transposes(mod)), target, tuning)


def generate_code(mod: IRModule, target: HostTarget) -> tvm.runtime.Executable:
    """Compile a lowered module to an executable with its functions as entry points."""
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
