"""Fast float32 simulation of quantized sites: values are rounded to their levels, products stay in float32.

It differs from :class:`.simulate.SimulatedSites` only in the last places of float sums, takes a fraction of its time,
and is what calibration runs many images through. Accuracy is reported with the exact one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from tvm_ahcq.quantizers.core.params import QuantizerParams

from .simulate import SimulatedSites, same_convolution

Layer = tuple[torch.Tensor, torch.Tensor | None]
"""Weight and bias that a layer runs with; no bias leaves the model's."""


class FakeQuantSites(SimulatedSites):
    """Every activation site rounded to its quantizer's levels; layers run with the weights that they are given.

    Parameters
    ----------
    quantizers : mapping of str to QuantizerParams
        One for each site.
    layers : mapping of str to (tensor, tensor or None)
        Weights and biases in place of the model's, by name of the layer; may be filled while the graph runs.
    """

    def __init__(self, quantizers: Mapping[str, QuantizerParams], layers: Mapping[str, Layer] | None = None):
        super().__init__(quantizers)
        self.layers: dict[str, Layer] = dict(layers or {})

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Layer `name` in float32."""
        weight, changed = self.layers.get(name, (weight, None))
        return F.linear(x, weight.flatten(1), bias if changed is None else changed)

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Convolution `name` in float32."""
        return same_convolution(x, self.layers.get(name, (weight, None))[0])

    def attention(self, name, q, k, v, scale, rel_h, rel_w) -> torch.Tensor:
        """Float attention with rounded probabilities."""
        return self.attention_by_probabilities(name, q, k, v, scale, rel_h, rel_w)

    def probabilities(self, name: str, probs: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Probabilities rounded to the levels of the site's quantizer."""
        return self.rounded_probabilities(f"{name}.probs", probs)
