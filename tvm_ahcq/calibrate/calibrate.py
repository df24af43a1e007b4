"""Calibration: find the quantizer of every site and the range of every weight.

The annotated graph runs in torch with all quantizers off while a sample of each site's values is recorded
(:mod:`.recorder`). Each site's quantizer and each weight's range are then calibrated and put into a
:class:`.QuantTable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tvm.ir import IRModule

from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.activation.agq import TAUS, AgqParams, calibrate_agq
from tvm_ahcq.quantizers.activation.cag import calibrate_cag
from tvm_ahcq.quantizers.activation.hluq import calibrate_hluq
from tvm_ahcq.quantizers.activation.lnq import ALPHAS, LnqParams, calibrate_lnq
from tvm_ahcq.quantizers.activation.pixels import PixelRange, observed_range, pixel_quantizer
from tvm_ahcq.quantizers.activation.row_relative import calibrate_row_relative
from tvm_ahcq.quantizers.activation.uniform import calibrate_uniform, uniform_from_range
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.recipe import Recipe
from tvm_ahcq.quantizers.core.table import QuantTable, WeightRange
from tvm_ahcq.quantizers.published import agq as agq_published
from tvm_ahcq.quantizers.published import hluq as hluq_published
from tvm_ahcq.quantizers.published import lnq as lnq_published
from tvm_ahcq.quantizers.published.cag import calibrate_cag_published
from tvm_ahcq.quantizers.published.hluq import HluqPublishedParams
from tvm_ahcq.quantizers.published.uniform import calibrate_uniform_published
from tvm_ahcq.quantizers.weight.weights import calibrate_weight
from tvm_ahcq.relay_passes.annotate import PIXELS, Layer, layers, reads_pixels, sites
from tvm_ahcq.torch_exec.executor import TorchExecutor

from .recorder import Recorder, observe
from .samples import Samples

PUBLISHED_PASSES = 8
"""Passes that the slow published searches of keys and probabilities use."""

WORKERS = 2

_SOFTMAX_SEARCHES = {"row_relative": calibrate_row_relative, "lnq": calibrate_lnq, "agq": calibrate_agq}
"""Searches of least error for the quantizers of softmax outputs."""


@dataclass(frozen=True)
class _Finder:
    """Search for a site's quantizer in what was recorded.

    Attributes
    ----------
    recorder : Recorder
        Sampled values and ranges.
    recipe : Recipe
        Choices.
    readers : mapping of str to numpy.ndarray
        By site, the weight of the layer that reads it.
    pixels : PixelRange or None
        Range of pictures; None: the recorded range.
    searched_keys : re.Pattern
        Key sites whose ranges the published method searches.
    """

    recorder: Recorder
    recipe: Recipe
    readers: Mapping[str, np.ndarray]
    pixels: PixelRange | None
    searched_keys: re.Pattern[str]

    def __call__(self, item: tuple[str, tuple[str, int]]) -> QuantizerParams:
        """Return the quantizer of a site, given its name, kind and bits."""
        site, (kind, bits) = item
        if site in self.recorder.slices:
            return self._probabilities(site, kind, bits)
        if kind == PIXELS:
            rows = np.concatenate(self.recorder.rows[site])
            ends = self.pixels or observed_range(rows, self.readers[site].shape[1])
            return pixel_quantizer(ends, rows.shape[1], bits)
        if self.recipe.search == "published" and kind != "uniform":
            return self._published(site, kind, bits)
        rows, importance = np.concatenate(self.recorder.rows[site]), None
        if site in self.readers:
            importance = _column_energy(self.readers[site])
        if kind == "cag":
            return calibrate_cag(rows, bits, importance, groups=self.recipe.groups)
        if kind == "hluq":
            return calibrate_hluq(rows, bits, importance)
        return self._uniform(site, rows, bits)

    def _uniform(self, site: str, rows: np.ndarray, bits: int) -> QuantizerParams:
        if self.recipe.search == "published" and self.searched_keys.fullmatch(site):
            return calibrate_uniform_published(self.recorder.rows[site][:PUBLISHED_PASSES], bits)
        if self.recipe.activation_range == "average":
            observed = self.recorder.ranges[site][1]
            return uniform_from_range(float(observed.low), float(observed.high), bits)
        return calibrate_uniform(rows, bits, method=self.recipe.activation_range)

    def _probabilities(self, site: str, kind: str, bits: int) -> QuantizerParams:
        if kind == "uniform":
            probs, _ = self.recorder.attention_sample(site)
            method = "minmax" if self.recipe.activation_range == "minmax" else "mse"
            return calibrate_uniform(probs, bits, method=method)
        if self.recipe.search == "error":
            sample = self.recorder.attention_sample(site)
            return _SOFTMAX_SEARCHES[kind](*sample, bits)
        probs, values = zip(*self.recorder.slices[site][:PUBLISHED_PASSES], strict=True)
        if kind == "lnq":
            scales, _, chosen = lnq_published.search_published(probs, values, bits)
            return LnqParams(bits, ALPHAS[chosen], float(scales[chosen]))
        scales, _, chosen = agq_published.search_published(probs, values, bits, extra=False)
        return AgqParams(bits, TAUS[chosen], float(scales[chosen]))

    def _published(self, site: str, kind: str, bits: int) -> QuantizerParams:
        if kind == "cag":
            observed = self.recorder.ranges[site][0]
            return calibrate_cag_published(observed.low, observed.high, bits, self.recipe.groups)
        weight = self.readers[site]
        scales, _ = hluq_published.search_published(self.recorder.rows[site], weight.reshape(len(weight), -1), bits)
        return HluqPublishedParams.of(scales)


def calibrate(
    mod: IRModule,
    params: Mapping[str, np.ndarray],
    samples: Samples,
    recipe: Recipe,
    *,
    progress: Progress = silent,
    pixels: PixelRange | None = None,
) -> QuantTable:
    """Find the quantizer of every site and the range of every weight of an annotated module.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    samples : Samples
        Calibration samples; the table carries the name of their model.
    recipe : Recipe
        Ranges, groups and bits.
    progress : callable
        Told of every finished sample, site and weight.
    pixels : (sequence, sequence) of float, optional
        Least and greatest value of each colour of a picture; by default the recorded ones.

    Returns
    -------
    QuantTable

    Raises
    ------
    CalibrationError
        If there are no samples or an activation is not finite.
    """
    recorder = observe(TorchExecutor(mod, params), samples, progress)
    kinds, readers = sites(mod), layers(mod).values()
    weights = {layer.weight: params[layer.weight] for layer in readers}
    by_site = {layer.site: weights[layer.weight] for layer in readers}
    finder = _Finder(recorder, recipe, by_site, pixels, re.compile(samples.family.searched_keys))

    def weight_range(layer: Layer) -> WeightRange:
        weight, bits = weights[layer.weight], recipe.bits_of_weight(layer.weight, reads_pixels(kinds, layer))
        return WeightRange.of(calibrate_weight(weight.reshape(len(weight), -1), bits, method=recipe.weight_range))

    with ThreadPoolExecutor(WORKERS) as pool:
        params_of_sites = _collect(pool.map(finder, kinds.items()), len(kinds), "calibrate: sites", progress)
        ranges = _collect(pool.map(weight_range, readers), len(readers), "calibrate: weights", progress)
    quantizers = dict(zip(kinds, params_of_sites, strict=True))
    return QuantTable(samples.spec.name, recipe, quantizers, dict(zip(weights, ranges, strict=True)))


def _column_energy(weight: np.ndarray) -> np.ndarray:
    """Return ``||W[:, c]||**2`` of each input channel, summed over the taps of a convolution."""
    return np.square(weight, dtype=np.float64).sum(axis=(0, *range(2, weight.ndim)))


def _collect(results: Iterable, total: int, what: str, progress: Progress) -> list:
    """Return the results as a list, telling `progress` of each."""
    collected = []
    for result in results:
        collected.append(result)
        progress(what, len(collected), total)
    return collected
