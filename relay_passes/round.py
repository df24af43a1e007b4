"""Phase 5, default effort: weight codes by error-compensated rounding, layer by layer, without gradients.

All images go through the graph in step, once in float and once quantized as far as the pass has come. Before each layer
both of its inputs are at hand; the layer is rounded to answer the quantized input as the float layer answers the float one
(:func:`tvm_ahcq.quantizers.rounding.round_layer`), and the rest of the graph sees the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from tvm.ir import IRModule

from tvm_ahcq.calibrate.executor import TorchExecutor
from tvm_ahcq.calibrate.lockstep import Lockstep, Streams
from tvm_ahcq.op.fake_quant import FakeQuantSites
from tvm_ahcq.op.simulate import Sites, exact_layer_norm
from tvm_ahcq.quantizers.rounding import LayerSample, RoundedLayer, round_layer
from tvm_ahcq.quantizers.table import QuantTable, WeightRange

from .annotate import Layer, layers
from .calibrate import Progress, calibration_prompts

ROWS_AN_IMAGE = 512
"""Rows (tokens) of a layer's input that are kept of each image."""


@dataclass(frozen=True)
class Rounding:
    """What the pass found.

    Attributes
    ----------
    table : QuantTable
        With new ranges and parameters.
    layers : dict of str to RoundedLayer
        Each layer's result, by name.
    """

    table: QuantTable
    layers: dict[str, RoundedLayer]


def round_weights(
    mod: IRModule,
    params: Mapping[str, np.ndarray],
    table: QuantTable,
    images: Sequence[np.ndarray],
    progress: Progress = lambda *_: None,
) -> Rounding:
    """Round every quantized layer of an annotated module.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    table : QuantTable
        From :func:`.calibrate.calibrate`.
    images : sequence of numpy.ndarray
        ``(1, 3, S, S)`` float32, preprocessed; all are in memory together with their activations at one place of the
        graph.
    progress : callable
        Told of every layer.
    """
    pass_ = _RoundingPass(mod, params, table, progress)
    pass_.run(images)
    changed = dict(table.params)
    ranges = dict(table.weights)
    for name, found in pass_.found.items():
        layer = pass_.layers[name]
        ranges[layer.weight] = WeightRange.of(found.weight)
        changed[layer.weight] = found.weight.dequantize().reshape(params[layer.weight].shape)
        if layer.bias is not None:
            changed[layer.bias] = found.bias
    return Rounding(replace(table, weights=ranges, params=changed), pass_.found)


class _RoundingPass:
    """State of one pass over the graph."""

    def __init__(self, mod: IRModule, params, table: QuantTable, progress: Progress):
        self.params = {**params, **table.params}
        self.layers: dict[str, Layer] = layers(mod)
        self.executor = TorchExecutor(mod, self.params, {"relax.nn.layer_norm": exact_layer_norm})
        self.sites = FakeQuantSites(table.sites)
        self.table, self.progress = table, progress
        self.found: dict[str, RoundedLayer] = {}

    def run(self, images: Sequence[np.ndarray]) -> None:
        """The encoder on all images, then the decoder on prompts for each."""
        streams = Streams(Sites(), self.sites)
        with torch.no_grad():
            encoder = Lockstep(self.executor, "encode_image", streams, [((image,), (image,)) for image in images])
            embeddings = encoder.run(self.visit)
            inputs = []
            for count, pair in enumerate(embeddings, 1):
                prompts = calibration_prompts(images[0].shape[-1], seed=count)
                inputs.append(tuple((embedding, *prompts) for embedding in pair))
            Lockstep(self.executor, "decode", streams, inputs).run(self.visit)

    def visit(self, name: str, inputs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Round the layer `name`, if it is quantized."""
        layer = self.layers.get(name)
        if layer is None:
            return
        weight = self.params[layer.weight]
        matrix = weight.reshape(len(weight), -1)
        bias = None if layer.bias is None else self.params[layer.bias]
        bits = self.table.weights[layer.weight].bits
        sample = layer_sample(inputs, weight.shape)
        rounded = round_layer(matrix, bias, sample, bits, self.table.recipe.weight_range)
        values = torch.from_numpy(rounded.weight.dequantize().reshape(weight.shape))
        self.sites.layers[name] = values, None if rounded.bias is None else torch.from_numpy(rounded.bias)
        self.found[name] = rounded
        self.progress("round: layers", len(self.found), len(self.layers))


def layer_sample(inputs: list[tuple[torch.Tensor, torch.Tensor]], shape: tuple[int, ...]) -> LayerSample:
    """Some rows (seeded) of a layer's inputs in both streams; every fourth image, or row of fewer, is held out."""
    rng = np.random.default_rng(0)
    unfold: Callable = _patches(shape[-1]) if len(shape) == 4 and shape[-1] > 1 else lambda x: x.flatten(0, -2)
    parts: tuple[list, list] = ([], [])
    fold = []
    for place, pair in enumerate(inputs):
        rows = [unfold(x) for x in pair]
        count = len(rows[0])
        chosen = torch.from_numpy(rng.choice(count, min(count, ROWS_AN_IMAGE), replace=False))
        for part, matrix in zip(parts, rows, strict=True):
            part.append(matrix[chosen].numpy())
        fold.append(np.full(len(chosen), place % 4 == 3) if len(inputs) > 3 else np.arange(len(chosen)) % 4 == 3)
    return LayerSample(np.concatenate(parts[0]), np.concatenate(parts[1]), np.concatenate(fold))


def _patches(kernel: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rows ``(B * H * W, C * kernel**2)`` of a same-padded convolution's input ``(B, H, W, C)``."""

    def unfold(x: torch.Tensor) -> torch.Tensor:
        columns = F.unfold(x.permute(0, 3, 1, 2), kernel, padding=kernel // 2)
        return columns.transpose(1, 2).flatten(0, 1)

    return unfold
