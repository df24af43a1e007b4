"""The compiler's table of contents: every phase from an imported model to an executable, in order.

| phase | pass | file |
|---|---|---|
| 1 | canonicalise: named linear layers, convolutions, attention | ``canonicalise.py`` |
| 2 | annotate: quantization sites | ``annotate.py`` |
| 3 | calibrate: a quantizer for each site, ranges for each weight | ``calibrate.py`` |
| 6 | realise: integer operators, coded weights | ``realise.py`` |
| 8 | legalise, schedule: kernels | ``legalise.py``, ``schedule.py`` |

(4, condition; 5, reconstruct; and 7, partition, take their places between these.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_ahcq.target import HostTarget

from .annotate import annotate
from .canonicalise import canonicalise
from .legalise import legalise
from .realise import Realised, realise
from .rewrite import PARAM_NAMES
from .schedule import schedule_pass

__all__ = ["Realised", "annotate", "build", "canonicalise", "dump", "legalise", "name_parameters", "realise"]

LAYOUT_ONLY = ["relax.reshape"]
"""Not legalised: at run time they are views."""


def name_parameters(mod: IRModule, function_params: Mapping[str, Sequence[str]]) -> IRModule:
    """Attach the stable names of each function's parameters, which the passes read."""
    result = IRModule(dict(mod.functions), attrs=mod.attrs)
    for name, names in function_params.items():
        result[name] = mod[name].with_attr(PARAM_NAMES, list(names))
    return result


def dump(mod: IRModule, phase: str, folder: Path | None) -> None:
    """Write `mod` as TVMScript (constants left out) to ``folder/<phase>.py``, if there is a folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{phase}.py").write_text(mod.script(show_meta=False), encoding="utf-8")


def build(mod: IRModule, target: HostTarget, dump_dir: Path | None = None) -> tvm.runtime.Executable:
    """Compile a realised (or canonical float) module for a host.

    Parameters
    ----------
    mod : tvm.IRModule
        Integer or float Relax functions.
    target : HostTarget
        Processor.
    dump_dir : Path, optional
        Where the module is written after each phase.

    Returns
    -------
    tvm.runtime.Executable
        With the functions of `mod` as entry points.
    """
    mod = legalise(mod, target)
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
