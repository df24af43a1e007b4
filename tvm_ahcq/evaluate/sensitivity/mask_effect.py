"""What quantizing one part of a model does to the masks that come out, everything else left in float."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tvm.ir import IRModule

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.models.description import ModelSpec
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.partial import PartialSites
from tvm_ahcq.torch_exec.simulate import exact_layer_norm, using_sites

from .probes import Frame, on_the_picture

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps finished, steps in all)."""


@dataclass(frozen=True)
class Unit:
    """A part of the model that is quantized alone.

    Attributes
    ----------
    name, kind : str
        Such as a site's name; ``site``, ``weight``, ``layer``, ``block`` or ``model``.
    sites, layers : tuple of str
        Activation sites, and layers whose weights belong to it.
    function : str
        Where it begins: ``encode_image``, or ``decode``, which does not need the image encoded again.
    """

    name: str
    kind: str
    sites: tuple[str, ...]
    layers: tuple[str, ...]
    function: str


@dataclass(frozen=True)
class Effect:
    """How the masks change when one unit is quantized.

    Attributes
    ----------
    unit : Unit
        What was quantized.
    logits : float
        ``||logits - float logits|| / ||float logits||`` of the masks that the float model chooses; inf if they are not
        finite.
    iou_loss : float
        1 minus the mean IoU of these masks with the float model's.
    """

    unit: Unit
    logits: float
    iou_loss: float


class MaskProbe:
    """Runs a model on a few pictures with any part of it quantized, and compares the masks with the float model's.

    Parameters
    ----------
    spec : ModelSpec
        Figures of the model.
    annotated : tvm.IRModule
        Its graph with quantization sites.
    params, changed : mapping of str to numpy.ndarray
        Parameters of the float model, and those that conditioning and rounding put in place of them: they take effect
        with the layer that they belong to, those of no layer always.
    quantizers : mapping of str to QuantizerParams
        By name of the site.
    weights : mapping of str to QuantizedWeight
        By name of the layer.
    frames : sequence of Frame
        Pictures and prompts.
    """

    def __init__(
        self,
        spec: ModelSpec,
        annotated: IRModule,
        params: Mapping[str, np.ndarray],
        changed: Mapping[str, np.ndarray],
        quantizers: Mapping[str, QuantizerParams],
        weights: Mapping[str, QuantizedWeight],
        frames: Sequence[Frame],
    ):
        self.spec, self.frames, self.quantizers, self.weights = spec, frames, quantizers, weights
        self._of_layer: dict[str, dict[str, torch.Tensor]] = {}
        base = dict(params)
        for name, value in changed.items():
            layer = name.rpartition(".")[0]
            if layer in weights:
                self._of_layer.setdefault(layer, {})[name] = torch.from_numpy(np.ascontiguousarray(value))
            else:
                base[name] = value
        self._executor = TorchExecutor(annotated, base, {"relax.nn.layer_norm": exact_layer_norm})
        self._float_params = dict(self._executor.params)
        self._seconds: dict[str, list[float]] = {"encode_image": [], "decode": []}
        self._embeddings = [self._encode(PartialSites({}), frame) for frame in frames]
        decoded = [self._decode(PartialSites({}), *pair) for pair in zip(self._embeddings, frames, strict=True)]
        self._choice = [_chosen(scores, frame.clicks) for (_, scores), frame in zip(decoded, frames, strict=True)]
        self.logits = [_select(masks, choice) for (masks, _), choice in zip(decoded, self._choice, strict=True)]
        if not all(np.isfinite(logits).all() for logits in self.logits):
            raise CalibrationError("The float model's masks are not finite; check the checkpoint and the images.")

    def quantized_logits(self, unit: Unit) -> list[np.ndarray]:
        """Logits ``(B, 4h, 4w)`` float32 of each picture's masks with only `unit` quantized, padding included."""
        sites = PartialSites(
            {site: self.quantizers[site] for site in unit.sites}, {layer: self.weights[layer] for layer in unit.layers}
        )
        for layer in unit.layers:
            self._executor.params.update(self._of_layer.get(layer, {}))
        try:
            found = []
            for index, frame in enumerate(self.frames):
                encoder = unit.function == "encode_image"
                embedding = self._encode(sites, frame) if encoder else self._embeddings[index]
                found.append(_select(self._decode(sites, embedding, frame)[0], self._choice[index]))
            return found
        finally:
            self._executor.params.update(self._float_params)

    def effect(self, unit: Unit) -> Effect:
        """How the masks change with only `unit` quantized, the padding of frames left out."""
        difference, total, overlaps = 0.0, 0.0, []
        for frame, *pair in zip(self.frames, self.logits, self.quantized_logits(unit), strict=True):
            exact, found = (on_the_picture(logits, frame, self.spec.image_size) for logits in pair)
            with np.errstate(over="ignore", invalid="ignore"):
                difference += float(np.square(found.astype(np.float64) - exact).sum())
            total += float(np.square(exact, dtype=np.float64).sum())
            overlaps += [iou(a, b) for a, b in zip(self.masks(exact), self.masks(found), strict=True)]
        change = np.sqrt(difference / total) if total > 0 else np.sqrt(difference)
        return Effect(unit, float(change) if np.isfinite(change) else float("inf"), 1 - float(np.mean(overlaps)))

    def masks(self, logits: np.ndarray) -> np.ndarray:
        """Boolean masks of logits."""
        return logits > self.spec.mask_threshold

    def expected_seconds(self, units: Sequence[Unit]) -> float:
        """About how long :meth:`effect` of all `units` takes, from the times that the float model took."""
        encoding, decoding = (min(times) * len(self.frames) for times in self._seconds.values())
        return sum(decoding + (encoding if unit.function == "encode_image" else 0.0) for unit in units)

    def _encode(self, sites: PartialSites, frame: Frame) -> torch.Tensor:
        return self._run(sites, "encode_image", frame.image)

    def _decode(self, sites: PartialSites, embedding: torch.Tensor, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        masks, scores = self._run(sites, "decode", embedding, frame.coords, frame.labels)
        return masks.numpy(), scores.numpy()

    def _run(self, sites: PartialSites, function: str, *inputs):
        start = time.perf_counter()
        with using_sites(sites), torch.inference_mode():
            result = self._executor.run(function, *inputs)
        if not sites.quantizers and not sites.weights:
            self._seconds[function].append(time.perf_counter() - start)
        return result


def _select(masks: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """One of the four masks of each prompt, the one that the float model chooses."""
    return masks[np.arange(len(masks)), choice]


def _chosen(scores: np.ndarray, clicks: int) -> np.ndarray:
    """Index of the mask that counts: for clicks the best scored of three, for boxes the single one."""
    choice = np.zeros(len(scores), np.intp)
    choice[:clicks] = 1 + scores[:clicks, 1:].argmax(1)
    return choice


def mask_effects(probe: MaskProbe, units: Sequence[Unit], progress: Progress = lambda *_: None) -> list[Effect]:
    """Effect of every unit, in their order."""
    effects = []
    for done, unit in enumerate(units, 1):
        effects.append(probe.effect(unit))
        progress("effect on masks", done, len(units))
    return effects
