"""Phase 4, ACNR: condition weights with the published strength, layer by layer in graph order.

See docs/quantizers.md#acnr; the mathematics is in :mod:`tvm_ahcq.quantizers.weight.acnr`. The quantized stream has
quantized activations and the weights that are already conditioned. Recipe "ahcq" instead chooses a strength for each
layer while it rounds that layer (:mod:`.round_weights`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from tvm.ir import IRModule

from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.acnr import ConditionedWeight, Conditioner, input_error_moment

from .layer_walk import LayerWalk, layer_sample
from .samples import Samples

PUBLISHED_ITERATIONS = {4: 200, 5: 200, 6: 20, 8: 20}
"""ACNR iterations by code width; 8 bits is not published and has the setting of 6."""


def condition(
    mod: IRModule,
    params: Mapping[str, np.ndarray],
    table: QuantTable,
    samples: Samples,
    progress: Progress = silent,
) -> dict[str, ConditionedWeight]:
    """Condition every two-dimensional weight whose input is a site.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    table : QuantTable
        Quantizers of activations.
    samples : Samples
        Calibration samples.
    progress : callable
        Told of every layer.

    Returns
    -------
    dict of str to ConditionedWeight
        By name of the weight.
    """
    walk = LayerWalk(mod, params, table)
    total = sum(params[layer.weight].ndim == 2 for layer in walk.layers.values())
    conditioned: dict[str, ConditionedWeight] = {}

    def visit(name: str, inputs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        layer = walk.layers.get(name)
        if layer is None or params[layer.weight].ndim != 2:
            return
        weight, bits = params[layer.weight], table.weights[layer.weight].bits
        sample = layer_sample(inputs, weight.shape)
        moment = input_error_moment(sample.float_inputs - sample.quantized_inputs)
        conditioner = Conditioner(weight, moment, doubled_energy="doubled_energy" in table.recipe.faults)
        conditioned[layer.weight] = conditioner.weight(PUBLISHED_ITERATIONS[bits])
        walk.sites.layers[name] = torch.from_numpy(conditioned[layer.weight].weight), None
        progress("condition: layers", len(conditioned), total)

    walk.run(samples, visit)
    return conditioned
