"""Walk over the quantized layers of a model in graph order, with the inputs of all samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tvm.ir import IRModule

from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.round_layer import LayerSample
from tvm_ahcq.relay_passes.annotate import Layer, layers
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.fake_quant import FakeQuantSites
from tvm_ahcq.torch_exec.lockstep import Finished, Lockstep, Streams, Visitor, drive_in_step
from tvm_ahcq.torch_exec.simulate import Sites, exact_layer_norm

from .samples import Samples

ROWS_AN_IMAGE, ROWS_A_LAYER = 512, 4096
"""Rows (tokens) of a layer's input that are sampled: the first of each image, or more where images are few, so that all
together are at least the second."""


class LayerWalk:
    """Float and quantized stream through a model; a visitor changes layers of the quantized stream in graph order.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Parameters of both streams.
    table : QuantTable
        Quantizers of the second stream's activations; its weights begin in float.

    Attributes
    ----------
    layers : dict of str to Layer
        Quantized layers by name.
    sites : FakeQuantSites
        Of the quantized stream; ``sites.layers`` is where a visitor puts changed weights and biases.
    """

    def __init__(self, mod: IRModule, params: Mapping[str, np.ndarray], table: QuantTable):
        self.layers: dict[str, Layer] = layers(mod)
        self.executor = TorchExecutor(mod, params, {"relax.nn.layer_norm": exact_layer_norm})
        self.sites = FakeQuantSites(table.sites)

    def run(self, samples: Samples, visit: Visitor) -> None:
        """Drive all samples through the model in step, until every layer has been visited."""
        streams, visited = Streams(Sites(), self.sites), set()

        def visit_once(name: str, inputs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
            if name not in visited:
                visited.add(name)
                visit(name, inputs)

        def execute(function: str, inputs: list[tuple[Any, ...]]) -> list[tuple[Any, Any]]:
            if visited.issuperset(self.layers):
                raise Finished
            return Lockstep(self.executor, function, streams, inputs).run(visit_once)

        with torch.no_grad():
            drive_in_step(list(zip(samples.drivers(), samples.drivers(), strict=True)), execute)


def layer_sample(inputs: list[tuple[torch.Tensor, torch.Tensor]], shape: tuple[int, ...]) -> LayerSample:
    """Return a seeded sample of the rows of a layer's inputs in both streams.

    Every fourth image is held out; with 3 images or fewer, every fourth row.

    Parameters
    ----------
    inputs : list of (tensor, tensor)
        For each image, the layer's input in the float and in the quantized stream.
    shape : tuple of int
        Shape of the layer's weight.
    """
    rng = np.random.default_rng(0)
    whole = inputs[0][0].shape[-1] == np.prod(shape[1:])  # rows of the weight's length: not a convolution
    unfold: Callable = (lambda x: x.flatten(0, -2)) if whole else _patches(shape[-1])
    parts: tuple[list, list] = ([], [])
    limit = max(ROWS_AN_IMAGE, ROWS_A_LAYER // len(inputs))
    held_out = []
    for place, pair in enumerate(inputs):
        rows = [unfold(x) for x in pair]
        count = len(rows[0])
        chosen = torch.from_numpy(rng.choice(count, min(count, limit), replace=False))
        for part, matrix in zip(parts, rows, strict=True):
            part.append(matrix[chosen].numpy())
        held_out.append(np.full(len(chosen), place % 4 == 3) if len(inputs) > 3 else np.arange(len(chosen)) % 4 == 3)
    return LayerSample(np.concatenate(parts[0]), np.concatenate(parts[1]), np.concatenate(held_out))


def _patches(kernel: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that unfolds a same-padded convolution's input.

    From ``(B, H, W, C)`` it makes rows ``(B * H * W, C * kernel**2)``.
    """

    def unfold(x: torch.Tensor) -> torch.Tensor:
        columns = F.unfold(x.permute(0, 3, 1, 2), kernel, padding=kernel // 2)
        return columns.transpose(1, 2).flatten(0, 1)

    return unfold
