"""Changes of the masks when one part of a model is quantized and the rest stays in float."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tvm.ir import IRModule

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.evaluate.metrics.iou import iou
from tvm_ahcq.models.description import DECODE, ENCODE
from tvm_ahcq.models.evaluation import PromptedImage
from tvm_ahcq.models.registry import find_family, prompting_of
from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.partial import PartialSites
from tvm_ahcq.torch_exec.simulate import exact_layer_norm, using_sites


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
        Name of the first function that has it; functions before that are not run again.
    """

    name: str
    kind: str
    sites: tuple[str, ...]
    layers: tuple[str, ...]
    function: str


@dataclass(frozen=True)
class Effect:
    """Change of the masks when one unit is quantized.

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
    """Run a model on a few pictures with any part of it quantized, and compare the masks with the float model's.

    Parameters
    ----------
    spec : ModelSpec
        Figures of the model.
    annotated : tvm.IRModule
        Its graph with quantization sites.
    params, changed : mapping of str to numpy.ndarray
        Parameters of the float model, and those that conditioning and rounding replaced: they take effect with the
        layer that they belong to, those of no layer always.
    quantizers : mapping of str to QuantizerParams
        By name of the site.
    weights : mapping of str to QuantizedWeight
        By name of the layer.
    frames : sequence of PromptedImage
        Pictures and prompts.
    """

    def __init__(
        self,
        spec: Any,
        annotated: IRModule,
        params: Mapping[str, np.ndarray],
        changed: Mapping[str, np.ndarray],
        quantizers: Mapping[str, QuantizerParams],
        weights: Mapping[str, QuantizedWeight],
        frames: Sequence[PromptedImage],
    ):
        self.spec, self.frames, self.quantizers, self.weights = spec, frames, quantizers, weights
        family, self._prompting = find_family(spec.family), prompting_of(spec)
        self._encoder, self._decoder = family.function_name(ENCODE), family.function_name(DECODE)
        self._taken = family.passed_outputs(ENCODE, DECODE)
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
        self._seconds: dict[str, list[float]] = {self._encoder: [], self._decoder: []}
        self._features = [self._encode(PartialSites({}), frame) for frame in frames]
        decoded = [self._decode(PartialSites({}), *pair) for pair in zip(self._features, frames, strict=True)]
        self._choice = [
            self._prompting.choose(scores, frame.clicks) for (_, scores), frame in zip(decoded, frames, strict=True)
        ]
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
            logits = []
            for index, frame in enumerate(self.frames):
                encoded = unit.function == self._encoder
                features = self._encode(sites, frame) if encoded else self._features[index]
                logits.append(_select(self._decode(sites, features, frame)[0], self._choice[index]))
            return logits
        finally:
            self._executor.params.update(self._float_params)

    def effect(self, unit: Unit) -> Effect:
        """Return the change of the masks with only `unit` quantized, padding left out."""
        difference, total, overlaps = 0.0, 0.0, []
        for frame, *pair in zip(self.frames, self.logits, self.quantized_logits(unit), strict=True):
            exact, quantized = (self._prompting.crop(self.spec, logits, frame) for logits in pair)
            with np.errstate(over="ignore", invalid="ignore"):
                difference += float(np.square(quantized.astype(np.float64) - exact).sum())
            total += float(np.square(exact, dtype=np.float64).sum())
            overlaps += [iou(a, b) for a, b in zip(self.masks(exact), self.masks(quantized), strict=True)]
        change = np.sqrt(difference / total) if total > 0 else np.sqrt(difference)
        return Effect(unit, float(change) if np.isfinite(change) else float("inf"), 1 - float(np.mean(overlaps)))

    def masks(self, logits: np.ndarray) -> np.ndarray:
        """Return the boolean masks of logits."""
        return logits > self.spec.mask_threshold

    def expected_seconds(self, units: Sequence[Unit]) -> float:
        """Estimate the time of :meth:`effect` of all `units` from the times that the float model took."""
        encoding, decoding = (min(times) * len(self.frames) for times in self._seconds.values())
        return sum(decoding + (encoding if unit.function == self._encoder else 0.0) for unit in units)

    def _encode(self, sites: PartialSites, frame: PromptedImage) -> tuple[torch.Tensor, ...]:
        """Return the outputs that the decoder takes."""
        outputs = self._run(sites, self._encoder, frame.image)
        return tuple(outputs[index] for index in self._taken)

    def _decode(
        self, sites: PartialSites, features: tuple[torch.Tensor, ...], frame: PromptedImage
    ) -> tuple[np.ndarray, np.ndarray]:
        masks, scores, *_ = self._run(sites, self._decoder, *features, *frame.prompts)
        return masks.numpy(), scores.numpy()

    def _run(self, sites: PartialSites, function: str, *inputs: Any) -> tuple[torch.Tensor, ...]:
        start = time.perf_counter()
        with using_sites(sites), torch.inference_mode():
            result = self._executor.run(function, *inputs)
        if not sites.quantizers and not sites.weights:
            self._seconds[function].append(time.perf_counter() - start)
        return result if isinstance(result, tuple) else (result,)


def _select(masks: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Return of each prompt the mask that the float model chooses."""
    return masks[np.arange(len(masks)), choice]


def mask_effects(probe: MaskProbe, units: Sequence[Unit], progress: Progress = silent) -> list[Effect]:
    """Return the effect of every unit, in their order."""
    effects = []
    for done, unit in enumerate(units, 1):
        effects.append(probe.effect(unit))
        progress("effect on masks", done, len(units))
    return effects
