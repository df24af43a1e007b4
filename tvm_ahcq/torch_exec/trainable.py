"""Quantization sites with gradients: rounded weights and activation scales that block reconstruction learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams, table_boundaries, table_entries
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight

from .adaround import alpha_start, hard_codes, soft_weight
from .fake_quant import FakeQuantSites, WeightAndBias
from .lsq import MIN_LEARNED_SCALE, grouped_lsq, table_lsq, uniform_lsq
from .simulate import ACTIVATIONS

START_BIAS = 0.3
"""Distance of a weight's start value from the midpoint of its two codes, towards its current code, in steps."""


@dataclass(eq=False)
class LearnedWeight:
    """Learned rounding of a weight: each element has two neighbouring codes to choose from, one of them its current.

    Attributes
    ----------
    between : torch.Tensor
        A value between the two codes, shape of the weight.
    alpha : torch.Tensor
        Learned rounding variable, the same shape.
    quantized : QuantizedWeight
        Current codes and their scales.
    """

    between: torch.Tensor
    alpha: torch.Tensor
    quantized: QuantizedWeight

    @classmethod
    def of(cls, quantized: QuantizedWeight, target: torch.Tensor) -> LearnedWeight:
        """Return the learned rounding between the current codes and their neighbours towards `target`."""
        scale = torch.from_numpy(quantized.scale).reshape((-1,) + (1,) * (target.ndim - 1))
        step = torch.from_numpy(quantized.operands().astype(np.float32))
        below = target < step * scale
        between = (step + torch.where(below, -0.5 + START_BIAS, 0.5 - START_BIAS)) * scale
        alpha = alpha_start(between, torch.from_numpy(quantized.scale)).requires_grad_()
        return cls(between, alpha, quantized)

    def soft(self) -> torch.Tensor:
        """Return the soft weight, differentiable in `alpha`."""
        q = self.quantized
        return soft_weight(self.between, self.alpha, torch.from_numpy(q.scale), torch.from_numpy(q.zero_point), q.bits)

    def hard(self) -> QuantizedWeight:
        """Return the weight with hard codes."""
        q = self.quantized
        scale, zero_point = torch.from_numpy(q.scale), torch.from_numpy(q.zero_point)
        codes = hard_codes(self.between, self.alpha.detach(), scale, zero_point, q.bits)
        return replace(q, codes=codes.numpy())


class TrainableSites(FakeQuantSites):
    """Sites of :class:`.fake_quant.FakeQuantSites` with gradients for a few layers and sites.

    Parameters
    ----------
    quantizers, layers
        As for :class:`.fake_quant.FakeQuantSites`.
    learned : mapping of str to LearnedWeight
        Learned weights by name of the layer.
    sites : sequence of str
        Sites whose scales are learned.
    drop : float
        Probability with which an element of a learned site stays in float, so that training sees both (QDrop,
        arXiv 2203.05740).
    """

    def __init__(
        self,
        quantizers: Mapping[str, QuantizerParams],
        layers: Mapping[str, WeightAndBias],
        learned: Mapping[str, LearnedWeight],
        sites: tuple[str, ...],
        drop: float = 0.0,
    ):
        super().__init__(quantizers, layers)
        self.quantizers: dict[str, QuantizerParams] = dict(quantizers)
        self.learned, self.drop = learned, drop
        self.scales: dict[str, torch.Tensor] = {}
        for site in sites:
            self.set_quantizer(site, self.quantizers[site])

    def set_quantizer(self, site: str, params: QuantizerParams) -> None:
        """Replace the quantizer of a site; learning starts from its scale."""
        self.quantizers[site] = params
        scales = {UniformParams: "scale", CagParams: "scales", HluqParams: "delta"}
        if type(params) in scales:
            start = np.asarray(getattr(params, scales[type(params)]), np.float32)
            self.scales[site] = torch.tensor(start).requires_grad_()

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Return the value of the site, differentiable straight through in `x`, and in the scale if it is learned."""
        if site not in self.scales:
            plain = ACTIVATIONS[activation](x)
            return plain + (super().activation(site, x.detach(), activation) - plain.detach())
        x, params, scale = ACTIVATIONS[activation](x), self.quantizers[site], self.scales[site]
        if isinstance(params, CagParams):
            zero_points, groups = torch.tensor(params.zero_points), torch.tensor(params.group_of)
            rounded = grouped_lsq(x, scale, zero_points, groups, params.bits)
        elif isinstance(params, HluqParams):
            shape = params.bits, params.log_levels, params.step
            table, boundaries = (torch.from_numpy(make(*shape)) for make in (table_entries, table_boundaries))
            rounded = table_lsq(x, scale, float(np.float32(params.offset)), table, boundaries)
        else:
            assert isinstance(params, UniformParams), "set_quantizer lets no other kind learn"
            rounded = uniform_lsq(x, scale, params.zero_point, params.bits)
        if not self.drop:
            return rounded
        return torch.where(torch.rand(x.shape) < self.drop, x, rounded)

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Run layer `name`, with its soft weight if that is learned."""
        self._soften(name)
        return super().linear(name, x, weight, bias)

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Run convolution `name`, with its soft weight if that is learned."""
        self._soften(name)
        return super().conv2d(name, x, weight)

    def probabilities(self, name: str, probs: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return rounded probabilities; the gradient passes straight through."""
        return probs + (super().probabilities(name, probs.detach(), v) - probs.detach())

    def _soften(self, name: str) -> None:
        """Put the soft weight of a learned layer in place of its weight."""
        if name in self.learned:
            self.layers[name] = self.learned[name].soft(), self.layers[name][1]

    def trained(self, site: str) -> QuantizerParams:
        """Return the quantizer of a site with its learned scale."""
        params, scale = self.quantizers[site], self.scales[site].detach().abs().clamp_min(MIN_LEARNED_SCALE).numpy()
        if isinstance(params, CagParams):
            return replace(params, scales=tuple(scale.tolist()))
        if isinstance(params, HluqParams):
            return replace(params, delta=float(scale))
        assert isinstance(params, UniformParams), "set_quantizer lets no other kind learn"
        return replace(params, scale=float(scale))
