"""Phase 5, default effort: weight codes by error-compensated rounding, layer by layer, without gradients.

See docs/quantizers.md#error-compensated-rounding; the mathematics is in
:mod:`tvm_ahcq.quantizers.weight.round_layer`.

All images pass through the graph in step, once in float and once quantized up to the current layer. Each layer is
rounded so that its output on the quantized input is closest to the float layer's output on the float input
(:func:`tvm_ahcq.quantizers.weight.round_layer.round_layer`); the layers behind it see the result. A layer that reads
pixels is rounded to nearest: it has enough bits, and patches of a few pictures do not represent those of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from tvm.ir import IRModule

from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.round_layer import RoundedLayer, round_layer
from tvm_ahcq.relay_passes.annotate import PIXELS, Layer, sites

from .layer_walk import LayerWalk, layer_sample
from .samples import Samples


@dataclass(frozen=True)
class Rounding:
    """The rounded table, and each layer's result.

    Attributes
    ----------
    table : QuantTable
        With new ranges, codes and biases.
    layers : dict of str to RoundedLayer
        Results by name of the layer.
    """

    table: QuantTable
    layers: dict[str, RoundedLayer]


def round_weights(
    mod: IRModule,
    params: Mapping[str, np.ndarray],
    table: QuantTable,
    samples: Samples,
    progress: Progress = silent,
) -> Rounding:
    """Round every quantized layer of an annotated module.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters, equalised or conditioned if they are to be.
    table : QuantTable
        From :func:`.calibrate.calibrate`.
    samples : Samples
        Calibration samples; the activations of all of them at one layer are in memory at a time.
    progress : callable
        Told of every layer.
    """
    walk, kinds = LayerWalk(mod, params, table), sites(mod)
    results: dict[str, RoundedLayer] = {}
    conditioned = table.recipe.conditioning == "chosen"

    def visit(name: str, inputs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        layer = walk.layers.get(name)
        if layer is None:
            return
        weight = params[layer.weight]
        rounded = round_layer(
            weight.reshape(len(weight), -1),
            None if layer.bias is None else params[layer.bias],
            layer_sample(inputs, weight.shape),
            table.weights[layer.weight].bits,
            table.recipe.weight_range,
            condition=conditioned and weight.ndim == 2,
            compensate=kinds[layer.site][0] != PIXELS,
        )
        values = torch.from_numpy(rounded.weight.dequantize().reshape(weight.shape))
        walk.sites.layers[name] = values, None if rounded.bias is None else torch.from_numpy(rounded.bias)
        results[name] = rounded
        progress("round: layers", len(results), len(walk.layers))

    walk.run(samples, visit)
    return Rounding(_with_results(table, walk.layers, results, params), results)


def _with_results(
    table: QuantTable,
    layers: Mapping[str, Layer],
    results: Mapping[str, RoundedLayer],
    params: Mapping[str, np.ndarray],
) -> QuantTable:
    """Return the table with codes (in the shape of the weight) and biases of all rounded layers."""
    weights, biases = {}, {}
    for name, rounded in results.items():
        layer = layers[name]
        codes = rounded.weight.codes.reshape(params[layer.weight].shape)
        weights[layer.weight] = replace(rounded.weight, codes=codes)
        if layer.bias is not None and rounded.bias is not None:
            biases[layer.bias] = rounded.bias
    return table.with_rounded(weights, biases)
