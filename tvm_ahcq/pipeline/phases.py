"""The phases of the pipeline: each a function that changes the state, and a condition under which it applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from tvm.ir import IRModule

from tvm_ahcq.calibrate.calibrate import calibrate
from tvm_ahcq.calibrate.condition import condition
from tvm_ahcq.calibrate.equalise import equalise
from tvm_ahcq.calibrate.fold_key_signs import fold_key_signs
from tvm_ahcq.calibrate.reconstruct import reconstruct
from tvm_ahcq.calibrate.recorder import observe
from tvm_ahcq.calibrate.round_weights import round_weights
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.export_library import export_library
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.equalise import apply_equalisation
from tvm_ahcq.relay_passes.annotate import annotate
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.lower.build import generate_code, lower
from tvm_ahcq.relay_passes.offload import partition
from tvm_ahcq.relay_passes.realise import Realised, realise
from tvm_ahcq.relay_passes.rewrite import name_parameters
from tvm_ahcq.torch_exec.executor import TorchExecutor

from .state import State

EQUALISING_SAMPLES = 4
"""Samples that equalisation observes."""

LEARNING_SAMPLES, LEARNING_ELEMENTS = 16, 1 << 22
"""Most samples that layers are conditioned and rounded on, and most positions of them all (4 images of 1024 x 1024):
their activations are in memory together."""


@dataclass(frozen=True)
class Phase:
    """A phase of the pipeline.

    Attributes
    ----------
    name : str
        Number and name; dumps are named after it.
    action : str
        What it does, in a few words.
    run : callable
        Changes the state.
    applies : callable
        True for states that the phase is run on.
    """

    name: str
    action: str
    run: Callable[[State], None]
    applies: Callable[[State], bool]


def realise_all(mod: IRModule, params: Mapping[str, np.ndarray], table: QuantTable, layout: str) -> Realised:
    """Put every quantization site on integers.

    Parameters
    ----------
    mod : tvm.IRModule
        Annotated.
    params : mapping of str to numpy.ndarray
        Parameters of the prepared model.
    table : QuantTable
        Quantizers of sites and weights.
    layout : str
        Of the packed weights (:data:`tvm_ahcq.runtime.weights.LAYOUTS`).

    Raises
    ------
    UnsupportedModelError
        If a site could not be put on integers.
    """
    result = realise(mod, params, table, layout)
    if result.missing:
        raise UnsupportedModelError(
            f"only {result.covered}/{result.total} quantization sites are on integers; left in float: "
            f"{', '.join(result.missing[:5])}. The graph has a pattern that the passes do not know."
        )
    return result


def _canonicalise(state: State) -> None:
    state.module = canonicalise(name_parameters(state.model.module, state.model.function_params))


def _annotate(state: State) -> None:
    state.module = annotate(state.module, state.chosen(), state.model.family)


def _equalise(state: State) -> None:
    recipe, samples, mod = state.chosen(), state.calibration(), state.module
    exchanges = samples.family.exchanges(state.params)
    recorder = observe(TorchExecutor(mod, state.params), samples.first(EQUALISING_SAMPLES), state.progress)
    changes: dict[str, np.ndarray] = {}
    if recipe.bimodal:
        erases = "zero_sign" in recipe.faults
        changes |= fold_key_signs(mod, state.params, recorder, samples.family.foldable_signs, erases)
    if recipe.equalise:
        changes |= equalise(mod, apply_equalisation(state.params, changes, exchanges), recorder, exchanges)
    state.params = apply_equalisation(state.params, changes, exchanges)
    state.table = QuantTable(state.model.name, recipe, equalisation=changes)


def _calibrate(state: State) -> None:
    recipe, samples = state.chosen(), state.calibration()
    pixels = samples.family.input_range(samples.spec)
    table = calibrate(state.module, state.float_params, samples, recipe, progress=state.progress, pixels=pixels)
    equalisation = {} if state.table is None else state.table.equalisation
    state.table = replace(table, params=state.conditioned, equalisation=equalisation)


def _condition(state: State) -> None:
    assert state.table is not None
    weights = condition(state.module, state.params, state.table, _learning(state), state.progress)
    state.conditioned = {name: weight.weight for name, weight in weights.items()}
    _calibrate(state)  # anew: activations follow the weights


def _round(state: State) -> None:
    assert state.table is not None
    samples = _learning(state)
    state.table = round_weights(state.module, state.float_params, state.table, samples, state.progress).table


def _reconstruct(state: State) -> None:
    assert state.table is not None
    state.table = reconstruct(
        state.module,
        state.float_params,
        state.table,
        state.calibration(),
        progress=state.progress,
        work_dir=state.work_dir,
    ).table


def _realise(state: State) -> None:
    assert state.table is not None
    for layout in state.layouts:
        state.realised[layout] = realise_all(state.module, state.params, state.table, layout)
    first = state.realised[state.layouts[0]]
    state.modules = {layout: each.module for layout, each in state.realised.items()}
    state.tensors, state.function_params = first.tensors, first.function_params


def _partition(state: State) -> None:
    options = state.offload
    assert options is not None
    family = state.model.family
    parts = {
        layout: partition(each, options.config, family, options.policy, options.chain, options.tuning)
        for layout, each in state.realised.items()
    }
    first = parts[state.layouts[0]]
    left = {name for names in first.function_params.values() for name in names}
    state.modules = {layout: each.module for layout, each in parts.items()}
    state.tensors = {name: tensor for name, tensor in state.tensors.items() if name in left}
    state.function_params, state.report = first.function_params, first.report


def _lower(state: State) -> None:
    modules = state.modules or {layout: state.module for layout in state.layouts}
    state.lowered = {host.name: lower(modules[host.layout], host, state.tuning) for host in state.hosts}


def _build(state: State) -> None:
    for host in state.hosts:
        state.libraries[host.name] = export_library(generate_code(state.lowered[host.name], host), host)


def _learning(state: State) -> Samples:
    """Return the samples that layers are conditioned and rounded on."""
    samples = state.calibration()
    positions = samples.inputs[0].shape[-1] * samples.inputs[0].shape[-2]
    return samples.first(max(2, min(LEARNING_SAMPLES, LEARNING_ELEMENTS // positions)))


def _always(_state: State) -> bool:
    return True


def _is_quantized(state: State) -> bool:
    return state.recipe is not None


def _calibrates(state: State) -> bool:
    return state.recipe is not None and state.samples is not None


def _equalises(state: State) -> bool:
    return _calibrates(state) and (state.chosen().equalise or state.chosen().bimodal)


def _conditions(state: State) -> bool:
    return _calibrates(state) and state.chosen().conditioning == "published"


def _rounds(state: State) -> bool:
    return _calibrates(state) and state.chosen().rounding == "compensated"


def _reconstructs(state: State) -> bool:
    return _calibrates(state) and state.effort == "high"


def _offloads(state: State) -> bool:
    return _is_quantized(state) and state.offload is not None


QUANTIZE = (
    Phase("1-canonicalise", "name linear layers, convolutions and attention", _canonicalise, _always),
    Phase("2-annotate", "insert quantization sites", _annotate, _is_quantized),
    Phase("3a-equalise", "rescale channels, centre keys", _equalise, _equalises),
    Phase("3b-calibrate", "find quantizers of sites and ranges of weights", _calibrate, _calibrates),
    Phase("4-condition", "condition weights (ACNR, published strength)", _condition, _conditions),
    Phase("5a-round", "round weights with error compensation", _round, _rounds),
    Phase("5b-reconstruct", "learn rounding and scales, unit by unit", _reconstruct, _reconstructs),
)
"""Phases of :func:`tvm_ahcq.quantize`."""

COMPILE = (
    Phase("6-realise", "replace sites by integer operators", _realise, _is_quantized),
    Phase("7-partition", "move operators to the accelerator", _partition, _offloads),
    Phase("8-lower", "select, fuse and schedule kernels", _lower, _always),
    Phase("9-build", "generate machine code, link libraries", _build, _always),
)
"""Phases of :func:`tvm_ahcq.compile`; of a float model, canonicalisation comes first."""

PHASES = (*QUANTIZE, *COMPILE)
"""All phases, in order."""
