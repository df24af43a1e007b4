"""Phase 3: run the annotated graph on images and find every quantizer.

The graph runs in torch with all quantizers off. A sample of what passes each site is kept; when all images have passed,
each site's quantizer and each weight's ranges are calibrated and put into a :class:`QuantTable`.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from tvm.ir import IRModule

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.agq import TAUS, AgqParams, calibrate_agq
from tvm_ahcq.quantizers.activation.cag import calibrate_cag
from tvm_ahcq.quantizers.activation.hluq import calibrate_hluq
from tvm_ahcq.quantizers.activation.lnq import ALPHAS, LnqParams, calibrate_lnq
from tvm_ahcq.quantizers.activation.pixels import PixelRange, observed_range, pixel_quantizer
from tvm_ahcq.quantizers.activation.uniform import calibrate_uniform, uniform_from_range
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.recipe import Recipe
from tvm_ahcq.quantizers.core.table import QuantTable, WeightRange
from tvm_ahcq.quantizers.published import agq as agq_published
from tvm_ahcq.quantizers.published import hluq as hluq_published
from tvm_ahcq.quantizers.published import lnq as lnq_published
from tvm_ahcq.quantizers.published.average_range import AverageRange
from tvm_ahcq.quantizers.published.cag import calibrate_cag_published
from tvm_ahcq.quantizers.published.hluq import HluqPublishedParams
from tvm_ahcq.quantizers.published.uniform import calibrate_uniform_published
from tvm_ahcq.quantizers.weight.weights import calibrate_weight
from tvm_ahcq.relay_passes.annotate import PIXELS, layers, sites
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import Sites, attention_logits, using_sites

ROWS_AN_IMAGE = 64
"""Rows (tokens) of an activation site that are kept of each image."""

ROWS_A_SITE = 2048
"""Rows of an activation site that are kept in all."""

PROBABILITY_SLICES = (4, 16)
"""Heads and queries of an attention whose probabilities are kept of each pass."""

PUBLISHED_PASSES = 8
"""Passes that the published searches of keys and probabilities, which are slow, look at."""

WORKERS = 2

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps finished, steps in all)."""


class Recorder(Sites):
    """Keeps a random sample (seeded) of what passes each site, and leaves everything in float."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.rows: dict[str, list[np.ndarray]] = defaultdict(list)
        self.slices: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        self.ranges: dict[str, tuple[AverageRange, AverageRange]] = {}
        """Of each channel, and of the whole tensor."""

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Keep the range of each channel and some rows, among them those with the least and greatest element."""
        x = super().activation(site, x, activation)
        rows = x.detach().flatten(0, -2)
        ends = torch.stack(rows.aminmax(dim=0)).numpy()
        self._observe_range(site, ends)
        if len(self.rows[site]) * ROWS_AN_IMAGE < ROWS_A_SITE:
            chosen = self.rng.choice(len(rows), min(len(rows), ROWS_AN_IMAGE), replace=False)
            # looked for in their own column only
            chosen[:2] = int(rows[:, ends[0].argmin()].argmin()), int(rows[:, ends[1].argmax()].argmax())
            self.rows[site].append(_kept(rows[torch.from_numpy(chosen)]))
        return x

    def _observe_range(self, site: str, ends: np.ndarray) -> None:
        if site not in self.ranges:
            self.ranges[site] = AverageRange(per_channel=True), AverageRange()
        if not np.isfinite(ends).all():
            raise CalibrationError(
                f"{site} sees NaN or infinite values on the calibration images; check the checkpoint and the images."
            )
        for observed in self.ranges[site]:
            observed.update(ends)

    def attention(self, name, q, k, v, scale, rel_h, rel_w) -> torch.Tensor:
        """Keep the probabilities of some queries of some heads, with the values that they weigh."""
        heads, queries = (min(limit, size) for limit, size in zip(PROBABILITY_SLICES, q.shape[:2], strict=True))
        kept = self.slices[f"{name}.probs"]
        if len(kept) < ROWS_A_SITE // (PROBABILITY_SLICES[0] * PROBABILITY_SLICES[1]):
            head = torch.from_numpy(self.rng.choice(len(q), heads, replace=False))
            rows = torch.from_numpy(self.rng.choice(q.shape[1], queries, replace=False))
            some = [x.detach()[head] for x in (q, k, v)]
            probs = attention_logits(some[0], some[1], scale, rel_h, rel_w)[:, rows].softmax(-1)
            kept.append((_kept(probs), _kept(some[2])))
        return super().attention(name, q, k, v, scale, rel_h, rel_w)

    def attention_sample(self, site: str) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities ``(S, R, K)`` and values ``(S, K, d)`` of a site; shorter samples are filled with zeros."""
        kept = self.slices[site]
        queries, keys = (max(p.shape[axis] for p, _ in kept) for axis in (1, 2))
        probs = [np.pad(p, ((0, 0), (0, queries - p.shape[1]), (0, keys - p.shape[2]))) for p, _ in kept]
        values = [np.pad(v, ((0, 0), (0, keys - v.shape[1]), (0, 0))) for _, v in kept]
        return np.concatenate(probs), np.concatenate(values)


def _kept(values: torch.Tensor) -> np.ndarray:
    """A copy in a mapping of its own.

    On the heap, what lasts would lie scattered among the activations that come and go, and keep their pages: 0.3 GB for
    each image of 1024 x 1024.
    """
    passing = values.numpy()
    memory = mmap.mmap(-1, max(1, passing.nbytes))
    lasting = np.frombuffer(memory, passing.dtype, passing.size).reshape(passing.shape)
    lasting[...] = passing
    return lasting


def calibration_prompts(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and boxes at random places: coordinates ``(B, 2, 2)`` in model pixels and labels ``(B, 2)``, float32."""
    rng = np.random.default_rng(seed)
    clicks = np.zeros((6, 2, 2))
    clicks[:, 0] = rng.uniform(0.05, 0.95, (6, 2)) * size
    centre, half = rng.uniform(0.25, 0.75, (4, 2)), rng.uniform(0.05, 0.25, (4, 2))
    boxes = np.stack([centre - half, centre + half], 1) * size
    labels = np.array([[1, -1]] * 6 + [[2, 3]] * 4)
    return np.concatenate([clicks, boxes]).astype(np.float32), labels.astype(np.float32)


def observe(executor: TorchExecutor, images: Sequence[np.ndarray], progress: Progress) -> Recorder:
    """Run every function of the model on each image and on prompts; return the sample.

    Raises
    ------
    CalibrationError
        If there are no images, or a site sees values that are not finite.
    """
    if not images:
        raise CalibrationError("There are no calibration images; pass a folder or an iterable of pictures.")
    recorder = Recorder()
    with using_sites(recorder), torch.no_grad():
        for count, image in enumerate(images, 1):
            embedding = executor.run("encode_image", image)
            coords, labels = calibration_prompts(image.shape[-1], seed=count)
            masks, scores = executor.run("decode", embedding, coords, labels)
            best = masks[torch.arange(len(masks)), scores.argmax(1)][:, None]
            executor.run("decode_mask", embedding, coords, labels, best)
            progress("calibrate: images", count, len(images))
    return recorder


@dataclass(frozen=True)
class _Finder:
    """Finds a site's quantizer from what was recorded."""

    recorder: Recorder
    recipe: Recipe
    readers: Mapping[str, np.ndarray]
    """Weight of the layer that reads a site."""

    pixels: PixelRange | None
    """Of pictures; None: what was seen."""

    def __call__(self, site: str, kind: str, bits: int) -> QuantizerParams:
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
        if self.recipe.search == "published" and site.startswith("mask_decoder") and site.endswith(".k"):
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
            return calibrate_lnq(*sample, bits) if kind == "lnq" else calibrate_agq(*sample, bits)
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
    images: Sequence[np.ndarray],
    recipe: Recipe,
    *,
    model: str,
    progress: Progress = lambda *_: None,
    pixels: PixelRange | None = None,
) -> QuantTable:
    """Find the quantizers of an annotated module.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    images : sequence of numpy.ndarray
        ``(1, 3, S, S)`` float32, preprocessed.
    recipe : Recipe
        Ranges, groups and bits.
    model : str
        Name that the table carries.
    progress : callable
        Told of every finished image, site and weight.
    pixels : (sequence, sequence) of float, optional
        Least and greatest value of each colour of a picture; by default those that were seen.

    Returns
    -------
    QuantTable

    Raises
    ------
    CalibrationError
        If there are no images or an activation is not finite.
    """
    recorder = observe(TorchExecutor(mod, params), images, progress)
    places, weights = sites(mod), [layer.weight for layer in layers(mod).values()]
    finder = _Finder(recorder, recipe, {layer.site: params[layer.weight] for layer in layers(mod).values()}, pixels)

    def quantizer(item: tuple[str, tuple[str, int]]) -> QuantizerParams:
        site, (kind, bits) = item
        return finder(site, kind, bits)

    def weight_range(name: str) -> WeightRange:
        matrix = params[name].reshape(len(params[name]), -1)
        return WeightRange.of(calibrate_weight(matrix, recipe.bits_of_weight(name), method=recipe.weight_range))

    with ThreadPoolExecutor(WORKERS) as pool:
        site_params = _collect(pool.map(quantizer, places.items()), len(places), "calibrate: sites", progress)
        ranges = _collect(pool.map(weight_range, weights), len(weights), "calibrate: weights", progress)
    found = dict(zip(places, site_params, strict=True)), dict(zip(weights, ranges, strict=True))
    return QuantTable(model, recipe, *found)


def _column_energy(weight: np.ndarray) -> np.ndarray:
    """``||W[:, c]||**2`` of each input channel, taps of a convolution together."""
    return np.square(weight, dtype=np.float64).sum(axis=(0, *range(2, weight.ndim)))


def _collect(results: Iterable, total: int, what: str, progress: Progress) -> list:
    collected = []
    for result in results:
        collected.append(result)
        progress(what, len(collected), total)
    return collected
