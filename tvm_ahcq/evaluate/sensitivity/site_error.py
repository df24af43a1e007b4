"""Errors of the quantizers, one by one: every site and layer is measured on the float model's own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight
from tvm_ahcq.torch_exec.partial import OPERANDS, PartialSites
from tvm_ahcq.torch_exec.simulate import Sites

from .histogram import Histogram, linear_histogram, log_histogram

VALUES_A_VISIT = 1 << 14
"""Values of a site that are kept for its histogram each time that the graph passes it."""

VALUES_A_SITE = 1 << 17
"""Values of a site that are kept in all."""


@dataclass(frozen=True, eq=False)
class SiteError:
    """Rounding error of the values of one activation site.

    Attributes
    ----------
    name, layer : str
        The site, and the layer that reads it.
    params : QuantizerParams
        Its quantizer.
    sqnr : float
        Signal to quantization noise, decibel; inf where rounding changes nothing.
    low, high : float
        Least and greatest value.
    histograms : tuple of Histogram
        Of a sample of the values, one for each codebook of the quantizer (CAG: a channel group).
    channel_low, channel_high : numpy.ndarray or None
        ``(C,)`` range of each channel where the quantizer tells channels apart.
    """

    name: str
    layer: str
    params: QuantizerParams
    sqnr: float
    low: float
    high: float
    histograms: tuple[Histogram, ...] = field(repr=False)
    channel_low: np.ndarray | None = field(default=None, repr=False)
    channel_high: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LayerError:
    """Error of one quantized layer's output, given the float model's values as input.

    Attributes
    ----------
    name, op : str
        The layer; ``linear``, ``conv2d`` or ``attention``.
    function : str
        Name of the first function of the model that has it.
    sites : tuple of str
        Activation sites that it reads.
    error : float
        ``||y_quantized - y||**2 / ||y||**2``, of a linear layer without its bias.
    """

    name: str
    op: str
    function: str
    sites: tuple[str, ...]
    error: float


def decibel(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``: inf without noise, -inf where only noise is left."""
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def share(noise: float, signal: float) -> float:
    """``noise / signal``, 0 if both are, inf if only the signal is."""
    return noise / signal if signal > 0 else float("inf") if noise > 0 else 0.0


@dataclass
class _Tally:
    """Energies of a signal and of its error."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: torch.Tensor, rounded: torch.Tensor) -> None:
        self.signal += float(exact.double().square().sum())
        self.noise += float((rounded.double() - exact.double()).square().sum())


@dataclass
class _Seen:
    """Statistics of one site."""

    tally: _Tally = field(default_factory=_Tally)
    low: float = np.inf
    high: float = -np.inf
    rows: list[np.ndarray] = field(default_factory=list)
    kept: int = 0
    channel_low: np.ndarray | None = None
    channel_high: np.ndarray | None = None


class ErrorSites(Sites):
    """Leaves everything in float, and adds up what quantization would change at each site and layer.

    Parameters
    ----------
    quantizers : mapping of str to QuantizerParams
        By name of the site.
    weights : mapping of str to QuantizedWeight
        By name of the layer.
    biases : mapping of str to numpy.ndarray
        Biases that belong to quantized weights, where they differ from the model's, by name of the layer.

    Attributes
    ----------
    function : str
        To be set to the name of the function that runs.
    """

    def __init__(
        self,
        quantizers: Mapping[str, QuantizerParams],
        weights: Mapping[str, QuantizedWeight],
        biases: Mapping[str, np.ndarray],
    ):
        self.quantizers, self.weights, self.biases = quantizers, weights, biases
        self.function = ""
        self._quantized = PartialSites(quantizers, weights)
        self._rounded: dict[str, torch.Tensor] = {}
        self._seen: dict[str, _Seen] = {}
        self._layers: dict[str, tuple[str, str, tuple[str, ...], _Tally]] = {}
        self._rng = np.random.default_rng(0)

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """The float value; what the quantizer makes of it waits for the layer that reads it."""
        value = super().activation(site, x, activation)
        rounded = self._quantized.activation(site, x, activation)
        self._see(site, value, rounded)
        self._rounded[site] = rounded
        return value

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The float product; compared with the integer one."""
        y = super().linear(name, x, weight, bias)
        if name in self.weights:
            changed = torch.from_numpy(self.biases[name]) if name in self.biases else bias
            rounded = self._quantized.linear(name, self._rounded.pop(f"{name}.input"), weight, changed)
            self._compare(name, "linear", (f"{name}.input",), y - bias, rounded - bias)
        return y

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The float convolution; compared with the integer one."""
        y = super().conv2d(name, x, weight)
        if name in self.weights:
            rounded = self._quantized.conv2d(name, self._rounded.pop(f"{name}.input"), weight)
            self._compare(name, "conv2d", (f"{name}.input",), y, rounded)
        return y

    def attention(self, name, q, k, v, scale, rel_h, rel_w) -> torch.Tensor:
        """The float attention; compared with the integer one."""
        y = self.attention_by_probabilities(name, q, k, v, scale, rel_h, rel_w)
        sites = tuple(f"{name}.{operand}" for operand in OPERANDS)
        if all(site in self.quantizers for site in sites):
            q, k, v = (self._rounded.pop(site).reshape(x.shape) for site, x in zip(sites, (q, k, v), strict=False))
            rounded = self._quantized.attention(name, q, k, v, scale, rel_h, rel_w)
            self._compare(name, "attention", sites, y, rounded)
        return y

    def probabilities(self, name: str, probs: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The float probabilities; compared with their rounded values."""
        if f"{name}.probs" in self.quantizers:
            self._see(f"{name}.probs", probs, self._quantized.probabilities(name, probs, v))
        return probs

    def sites(self) -> list[SiteError]:
        """Errors of the sites that have been passed, in graph order."""
        layer_of = {site: name for name, (_, _, sites, _) in self._layers.items() for site in sites}
        return [
            _site_error(site, layer_of[site], self.quantizers[site], seen)
            for site, seen in self._seen.items()
            if site in layer_of
        ]

    def layers(self) -> list[LayerError]:
        """Errors of the layers that have been passed, in graph order."""
        return [
            LayerError(name, op, function, sites, share(tally.noise, tally.signal))
            for name, (op, function, sites, tally) in self._layers.items()
        ]

    def _compare(self, name: str, op: str, sites: tuple[str, ...], y: torch.Tensor, rounded: torch.Tensor) -> None:
        *_, tally = self._layers.setdefault(name, (op, self.function, sites, _Tally()))
        tally.add(y, rounded)

    def _see(self, site: str, value: torch.Tensor, rounded: torch.Tensor) -> None:
        seen = self._seen.setdefault(site, _Seen())
        seen.tally.add(value, rounded)
        if not np.isfinite(seen.tally.signal):
            raise CalibrationError(f"The site {site} sees values that are not finite; check the checkpoint and images.")
        flat = value.reshape(-1, value.shape[-1])
        low, high = flat.amin(0).numpy(), flat.amax(0).numpy()
        seen.low, seen.high = min(seen.low, float(low.min())), max(seen.high, float(high.max()))
        if isinstance(self.quantizers[site], CagParams):
            seen.channel_low = low if seen.channel_low is None else np.minimum(seen.channel_low, low)
            seen.channel_high = high if seen.channel_high is None else np.maximum(seen.channel_high, high)
        rows = min(len(flat), max(1, VALUES_A_VISIT // flat.shape[1]))
        if seen.kept < VALUES_A_SITE:
            chosen = torch.from_numpy(self._rng.choice(len(flat), rows, replace=False))
            seen.rows.append(flat[chosen].numpy().copy())
            seen.kept += rows * flat.shape[1]


def _site_error(site: str, layer: str, params: QuantizerParams, seen: _Seen) -> SiteError:
    sqnr = decibel(seen.tally.signal, seen.tally.noise)
    if isinstance(params, CagParams):
        values, member = np.concatenate(seen.rows), np.asarray(params.group_of)
        histograms = tuple(linear_histogram(values[:, member == group]) for group in range(params.groups))
    else:
        histogram = log_histogram if site == f"{layer}.probs" else linear_histogram
        histograms = (histogram(np.concatenate([rows.ravel() for rows in seen.rows])),)
    return SiteError(site, layer, params, sqnr, seen.low, seen.high, histograms, seen.channel_low, seen.channel_high)
