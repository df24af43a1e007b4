"""Models to evaluate, all behind the same predictor, with how much of each runs quantized."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm_ahcq.errors import EvaluationError

if TYPE_CHECKING:
    from tvm_ahcq.api import QuantizedModel
    from tvm_ahcq.models.float_model import FloatModel
    from tvm_ahcq.models.sam.predictor import SamPredictor
    from tvm_ahcq.runtime.accelerator import DeviceOptions


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Attributes
    ----------
    name : str
        What to call it.
    model : str
        Model type, as "vit_b".
    numbers : str
        Its precision and what runs it, for people.
    sites : tuple of int or None
        Quantized sites on integers, and all of them; None for a float model.
    open : callable
        Makes its predictor.
    """

    name: str
    model: str
    numbers: str
    sites: tuple[int, int] | None
    open: Callable[[], SamPredictor]


def compiled(
    path: str | os.PathLike[str], num_threads: int | None = None, device: DeviceOptions | None = None
) -> Candidate:
    """A bundle; `device` runs the accelerator's part of one that has it.

    Raises
    ------
    BundleError
        It is missing, damaged, or made for another machine.
    EvaluationError
        It is quantized at some of its sites only.
    """
    from tvm_ahcq.models.sam.predictor import SamPredictor
    from tvm_ahcq.runtime.accelerator import DEFAULT_DEVICE
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.session import Session

    bundle = read_bundle(path)
    manifest = bundle.manifest
    quantized = bool(manifest.recipe)
    numbers = f"W{manifest.bits}A{manifest.bits} {manifest.recipe.get('name', '')}" if quantized else "float32"
    sites = check_coverage(str(path), manifest.sites) if quantized else None
    runs = "compiled"
    if manifest.accelerator is not None:
        runs = f"CPU + {device.name if device else DEFAULT_DEVICE} {manifest.accelerator['config']}"
    else:
        device = None  # of several bundles, those for the host alone run as they are
    return Candidate(
        str(path),
        manifest.model.name,
        f"{numbers}, {runs}",
        sites,
        lambda: SamPredictor(Session(bundle, num_threads, device)),
    )


def float_model(model: FloatModel) -> Candidate:
    """A model in float32, run by torch."""
    from tvm_ahcq.api import float_predictor

    return Candidate("float", model.name, "float32, torch", None, lambda: float_predictor(model))


def fake_quant(qmodel: QuantizedModel) -> Candidate:
    """A quantized model, simulated by torch.

    Raises
    ------
    UnsupportedModelError, EvaluationError
        It is quantized at some of its sites only.
    """
    recipe = qmodel.table.recipe
    numbers = f"W{recipe.bits_weights}A{recipe.bits_activations} {recipe.name}, torch"
    return Candidate(
        "fake-quant",
        qmodel.model.name,
        numbers,
        check_coverage("fake-quant", qmodel.sites),
        qmodel.fake_quant_predictor,
    )


def check_coverage(name: str, sites: tuple[int, int]) -> tuple[int, int]:
    """The sites, once all of them are quantized.

    Figures of a model that is half in float are the float model's rather than the method's; published ones have been
    inflated that way.

    Raises
    ------
    EvaluationError
        Some are not, or there are none.
    """
    covered, total = sites
    if covered < total or total == 0:
        raise EvaluationError(
            f"{name}: {covered}/{total} quantization sites are on integers, the rest is in float: its accuracy would "
            "not be that of the quantized model; compile it again with this version"
        )
    return sites
