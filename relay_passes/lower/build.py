"""Lowering of a module to kernels, and code generation."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import IRModule

from tvm_ahcq.target import HostTarget
from tvm_ahcq.tune.records import DEFAULTS, Tuning

from .factor_position_encodings import factor_position_encodings
from .legalise import legalise
from .schedule import schedule_pass
from .sink_transposes import sink_transposes

LAYOUT_ONLY = ["relax.reshape"]
"""Operators that are not legalised: at run time they are views."""


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
