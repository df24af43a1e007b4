"""Simulation with only some sites and weights quantized, to measure the effect of each on the result."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight

from .simulate import SimulatedSites, Sites, same_convolution

OPERANDS = ("q", "k", "v", "probs")
"""Sites of an attention, ``<name>.<operand>``."""


class PartialSites(SimulatedSites):
    """Sites of which those in `quantizers`, and the weights in `weights`, are quantized; the rest stays in float.

    A layer whose input and weight are both quantized runs on integers, and so does an attention whose four operands
    are; with only some of them, values are rounded to their quantizers' levels and multiplied in float. With everything
    quantized and float64 accumulation, results equal :class:`SimulatedSites` bit for bit; with nothing quantized and
    float32 accumulation, they equal the float :class:`Sites` bit for bit.

    Parameters
    ----------
    quantizers : mapping of str to QuantizerParams
        Quantizers by name of the site.
    weights : mapping of str to QuantizedWeight
        Quantized weights by name of the layer.
    accumulator : torch.dtype
        Accumulation in layers that stay in float: ``torch.float64`` as in the simulation, so that results do not depend
        on the order of additions, or ``torch.float32``, which takes half the time.
    """

    def __init__(
        self,
        quantizers: Mapping[str, QuantizerParams],
        weights: Mapping[str, QuantizedWeight] | None = None,
        accumulator: torch.dtype = torch.float64,
    ):
        super().__init__(quantizers, weights)
        self.accumulator = accumulator

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Return the value of the site, rounded if it has a quantizer."""
        kind = SimulatedSites if site in self.quantizers else Sites
        return kind.activation(self, site, x, activation)

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Run layer `name`, on integers if its input and weight are quantized."""
        if name in self.weights and f"{name}.input" in self.quantizers:
            return super().linear(name, x, weight, bias)
        weight = self._weight(name, weight)
        return F.linear(*(value.to(self.accumulator) for value in (x, weight, bias))).to(x.dtype)

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Run convolution `name`, on integers if its input and weight are quantized."""
        if name in self.weights and f"{name}.input" in self.quantizers:
            return super().conv2d(name, x, weight)
        return same_convolution(x.to(self.accumulator), self._weight(name, weight).to(self.accumulator)).to(x.dtype)

    def attention(self, name, q, k, v, scale, rel_h, rel_w) -> torch.Tensor:
        """Run attention `name`, on integers if its four operands are quantized."""
        arguments = name, q, k, v, scale, rel_h, rel_w
        if all(f"{name}.{operand}" in self.quantizers for operand in OPERANDS):
            return super().attention(*arguments)
        if f"{name}.probs" in self.quantizers:
            return self.attention_by_probabilities(*arguments)
        return Sites.attention(self, *arguments)

    def probabilities(self, name: str, probs: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of some heads, rounded."""
        return self.rounded_probabilities(f"{name}.probs", probs)

    def _weight(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return the layer's weight, rounded to its codes if it is quantized."""
        if name not in self.weights:
            return weight
        return torch.from_numpy(self.weights[name].dequantize()).reshape(weight.shape)
