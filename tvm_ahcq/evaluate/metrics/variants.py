"""Variants of a model to evaluate: compiled, simulated and float, behind the same predictors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm_ahcq.errors import EvaluationError
from tvm_ahcq.models.registry import find_family

if TYPE_CHECKING:
    from tvm_ahcq.api import QuantizedModel
    from tvm_ahcq.models.execution import ImagePredictor, SessionLike, VideoPredictor
    from tvm_ahcq.models.float_model import FloatModel
    from tvm_ahcq.runtime.accelerator import DeviceOptions


@dataclass(frozen=True)
class Variant:
    """A variant of a model to evaluate.

    Attributes
    ----------
    name : str
        Name in tables.
    model : str
        Model type.
    numbers : str
        Its precision and its executor, for people.
    sites : tuple of int or None
        Quantized sites on integers, and all of them; None for a float model.
    session : callable
        Return what executes its functions.
    """

    name: str
    model: str
    numbers: str
    sites: tuple[int, int] | None
    session: Callable[[], SessionLike]

    def open(self) -> ImagePredictor:
        """Return its predictor of masks in pictures."""
        session = self.session()
        predictor: ImagePredictor = find_family(session.model.family).predictor(session)
        return predictor

    def open_video(self, **options: Any) -> VideoPredictor:
        """Return its predictor of masks in videos; EvaluationError if it does not track."""
        session = self.session()
        tracker = find_family(session.model.family).video_predictor
        if tracker is None or not session.model.tracks:
            raise EvaluationError(f"{self.name}: {self.model} does not track objects in videos; expected a SAM 2")
        predictor: VideoPredictor = tracker(session, **options)
        return predictor


def compiled(
    path: str | os.PathLike[str],
    num_threads: int | None = None,
    device: DeviceOptions | None = None,
    video: bool = False,
) -> Variant:
    """Return a bundle as a variant; `device` runs its accelerator programs if it has any.

    Raises
    ------
    BundleError
        It is missing, damaged, or made for another machine, or does not track objects though `video` asks for that.
    EvaluationError
        It is quantized at some of its sites only.
    """
    from tvm_ahcq.runtime.accelerator import DEFAULT_DEVICE
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.load import require_video
    from tvm_ahcq.runtime.session import Session

    bundle = read_bundle(path)
    if video:
        require_video(bundle)
    manifest = bundle.manifest
    quantized = bool(manifest.recipe)
    numbers = f"W{manifest.bits}A{manifest.bits} {manifest.recipe.get('name', '')}" if quantized else "float32"
    sites = check_coverage(str(path), manifest.sites) if quantized else None
    runs = "compiled"
    if manifest.accelerator is not None:
        runs = f"CPU + {device.name if device else DEFAULT_DEVICE} {manifest.accelerator['config']}"
    else:
        device = None  # of several bundles, those for the host alone run as they are
    return Variant(
        str(path),
        manifest.model.name,
        f"{numbers}, {runs}",
        sites,
        lambda: Session(bundle, num_threads, device),
    )


def float_model(model: FloatModel) -> Variant:
    """Return a model in float32, run by torch."""
    from tvm_ahcq.api import float_session

    return Variant("float", model.name, "float32, torch", None, lambda: float_session(model))


def fake_quant(qmodel: QuantizedModel) -> Variant:
    """Return a quantized model, simulated by torch.

    Raises
    ------
    UnsupportedModelError, EvaluationError
        It is quantized at some of its sites only.
    """
    recipe = qmodel.table.recipe
    numbers = f"W{recipe.bits_weights}A{recipe.bits_activations} {recipe.name}, torch"
    return Variant(
        "fake-quant",
        qmodel.model.name,
        numbers,
        check_coverage("fake-quant", qmodel.sites),
        qmodel.fake_quant_session,
    )


def check_coverage(name: str, sites: tuple[int, int]) -> tuple[int, int]:
    """Return the sites if all of them are quantized.

    The accuracy of a model that is partly in float is not that of the method.

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
