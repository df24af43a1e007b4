"""Fast float32 simulation of quantized sites: values are rounded to their levels, products stay in float32.

It differs from :class:`.simulate.SimulatedSites` only in the last places of float sums and takes a fraction of its
time. Calibration runs many images through it; accuracy is reported with the exact simulation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from tvm_ahcq.quantizers.core.params import QuantizerParams

from .simulate import SimulatedSites, same_convolution

WeightAndBias = tuple[torch.Tensor, torch.Tensor | None]
"""Weight and bias of a layer in place of the model's; None keeps the model's bias."""


class FakeQuantSites(SimulatedSites):
    """Sites that round every activation to its quantizer's levels and run layers with given weights.

    Parameters
    ----------
    quantizers : mapping of str to QuantizerParams
        Quantizer of each site.
    layers : mapping of str to (tensor, tensor or None)
        Weights and biases in place of the model's, by name of the layer; may be filled while the graph runs.
    """

    def __init__(self, quantizers: Mapping[str, QuantizerParams], layers: Mapping[str, WeightAndBias] | None = None):
        super().__init__(quantizers)
        self.layers: dict[str, WeightAndBias] = dict(layers or {})

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Run layer `name` in float32."""
        weight, changed = self.layers.get(name, (weight, None))
        return F.linear(x, weight.flatten(1), bias if changed is None else changed)

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Run convolution `name` in float32."""
        return same_convolution(x, self.layers.get(name, (weight, None))[0])

    def attention(self, name, q, k, v, scale, rel_h, rel_w) -> torch.Tensor:
        """Run float attention with rounded probabilities."""
        return self.attention_by_probabilities(name, q, k, v, scale, rel_h, rel_w)

    def probabilities(self, name: str, probs: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return probabilities rounded to the levels of the site's quantizer."""
        return self.rounded_probabilities(f"{name}.probs", probs)
