"""Simulation with only some sites and weights quantized, at any bits: what does one of them do to the result?"""

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
    """The sites in `quantizers` and the layers' weights in `weights` are quantized; everything else stays in float.

    A layer whose input and weight are both quantized runs on integers, and so does an attention whose four operands
    are; with only some of them, values are rounded to their quantizers' levels and multiplied in float. With everything
    chosen and float64 sums, results equal :class:`SimulatedSites` bit for bit; with nothing chosen and float32 sums,
    they equal the float :class:`Sites` bit for bit.

    Parameters
    ----------
    quantizers : mapping of str to QuantizerParams
        By name of the site.
    weights : mapping of str to QuantizedWeight
        By name of the layer.
    sums : torch.dtype
        In which layers that stay in float add up: ``torch.float64`` as the simulation does, so that the order of
        additions does not show, or ``torch.float32``, which takes half the time.
    """

    def __init__(
        self,
        quantizers: Mapping[str, QuantizerParams],
        weights: Mapping[str, QuantizedWeight] | None = None,
        sums: torch.dtype = torch.float64,
    ):
        super().__init__(quantizers, weights)
        self.sums = sums

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Value of the site, rounded if it is chosen."""
        kind = SimulatedSites if site in self.quantizers else Sites
        return kind.activation(self, site, x, activation)

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Layer `name`, on integers if its input and weight are chosen."""
        if name in self.weights and f"{name}.input" in self.quantizers:
            return super().linear(name, x, weight, bias)
        weight = self._weight(name, weight)
        return F.linear(*(value.to(self.sums) for value in (x, weight, bias))).to(x.dtype)

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Convolution `name`, on integers if its input and weight are chosen."""
        if name in self.weights and f"{name}.input" in self.quantizers:
            return super().conv2d(name, x, weight)
        return same_convolution(x.to(self.sums), self._weight(name, weight).to(self.sums)).to(x.dtype)

    def attention(self, name, q, k, v, scale, rel_h, rel_w) -> torch.Tensor:
        """Attention `name`, on integers if its four operands are chosen."""
        arguments = name, q, k, v, scale, rel_h, rel_w
        if all(f"{name}.{operand}" in self.quantizers for operand in OPERANDS):
            return super().attention(*arguments)
        if f"{name}.probs" in self.quantizers:
            return self.attention_by_probabilities(*arguments)
        return Sites.attention(self, *arguments)

    def probabilities(self, name: str, probs: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Probabilities of some heads, rounded."""
        return self.rounded_probabilities(f"{name}.probs", probs)

    def _weight(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The layer's weight, rounded to its codes if it is chosen."""
        if name not in self.weights:
            return weight
        return torch.from_numpy(self.weights[name].dequantize()).reshape(weight.shape)
