"""Recording of sampled values at every quantization site while the float model runs."""

from __future__ import annotations

import mmap
from collections import defaultdict

import numpy as np
import torch

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.models.execution import run_driver
from tvm_ahcq.progress import Progress
from tvm_ahcq.quantizers.published.average_range import AverageRange
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import Sites, attention_logits, using_sites

from .samples import Samples

ROWS_AN_IMAGE = 64
"""Rows (tokens) of an activation site that are recorded of each image."""

ROWS_A_SITE = 2048
"""Rows of an activation site that are recorded in all."""

PROBABILITY_SLICES = (4, 16)
"""Heads and queries of an attention whose probabilities are recorded in each pass."""


class Recorder(Sites):
    """Sites that record a seeded sample of their values and leave everything in float.

    Attributes
    ----------
    rows : dict of str to list of numpy.ndarray
        Of each activation site, ``(R, C)`` rows of each pass.
    slices : dict of str to list of (numpy.ndarray, numpy.ndarray)
        Of each site of probabilities, probabilities ``(H, R, K)`` and values ``(H, K, d)`` of each pass.
    ranges : dict of str to (AverageRange, AverageRange)
        Of each activation site, the range of each channel and of the whole tensor.
    """

    def __init__(self, seed: int = 0):
        self.rng, self.replacing = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        self.passes: dict[str, int] = defaultdict(int)
        self.rows: dict[str, list[np.ndarray]] = defaultdict(list)
        self.slices: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        self.ranges: dict[str, tuple[AverageRange, AverageRange]] = {}

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Record the range of each channel and some rows, among them those with the least and greatest element."""
        x = super().activation(site, x, activation)
        rows = x.detach().flatten(0, -2)
        values = rows.numpy()  # numpy reduces columns in vectors, torch's aminmax does not
        ends = np.stack([values.min(0), values.max(0)])
        self._observe_range(site, ends)
        place = self._place(site, ROWS_A_SITE // ROWS_AN_IMAGE)
        if place is not None:
            chosen = self.rng.choice(len(rows), min(len(rows), ROWS_AN_IMAGE), replace=False)
            # looked for in their own column only
            chosen[:2] = int(rows[:, ends[0].argmin()].argmin()), int(rows[:, ends[1].argmax()].argmax())
            self.rows[site][place:] = [_copy(rows[torch.from_numpy(chosen)]), *self.rows[site][place + 1 :]]
        return x

    def _place(self, site: str, limit: int) -> int | None:
        """Place in the list of kept passes that a pass takes: of all passes, `limit` are kept, each as likely."""
        count = self.passes[site]
        self.passes[site] += 1
        place = count if count < limit else int(self.replacing.integers(count + 1))
        return place if place < limit else None

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
        """Record the probabilities of some queries of some heads, with the values that they weigh."""
        heads, queries = (min(limit, size) for limit, size in zip(PROBABILITY_SLICES, q.shape[:2], strict=True))
        slices = self.slices[f"{name}.probs"]
        place = self._place(f"{name}.probs", ROWS_A_SITE // (PROBABILITY_SLICES[0] * PROBABILITY_SLICES[1]))
        if place is not None:
            head = torch.from_numpy(self.rng.choice(len(q), heads, replace=False))
            rows = torch.from_numpy(self.rng.choice(q.shape[1], queries, replace=False))
            some = [x.detach()[head] for x in (q, k, v)]
            if rel_h is None:
                logits = attention_logits(some[0][:, rows], some[1], scale, None, None)
            else:  # relative positions take whole rows of the grid
                logits = attention_logits(some[0], some[1], scale, rel_h, rel_w)[:, rows]
            probs = logits.softmax(-1)
            slices[place:] = [(_copy(probs), _copy(some[2])), *slices[place + 1 :]]
        return super().attention(name, q, k, v, scale, rel_h, rel_w)

    def attention_sample(self, site: str) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities ``(S, R, K)`` and values ``(S, K, d)`` of a site; shorter samples are zero-padded."""
        slices = self.slices[site]
        queries, keys = (max(p.shape[axis] for p, _ in slices) for axis in (1, 2))
        probs = [np.pad(p, ((0, 0), (0, queries - p.shape[1]), (0, keys - p.shape[2]))) for p, _ in slices]
        values = [np.pad(v, ((0, 0), (0, keys - v.shape[1]), (0, 0))) for _, v in slices]
        return np.concatenate(probs), np.concatenate(values)


def _copy(values: torch.Tensor) -> np.ndarray:
    """Return a copy in a memory mapping of its own.

    On the heap, small long-lived copies between short-lived activations would keep the pages of the latter from being
    freed: 0.3 GB for each image of 1024 x 1024.
    """
    source = values.numpy()
    memory = mmap.mmap(-1, max(1, source.nbytes))
    copy = np.frombuffer(memory, source.dtype, source.size).reshape(source.shape)
    copy[...] = source
    return copy


def observe(executor: TorchExecutor, samples: Samples, progress: Progress) -> Recorder:
    """Run every function of the model on each sample; return the recorder.

    Raises
    ------
    CalibrationError
        If there are no samples, or a site sees values that are not finite.
    """
    if not samples:
        raise CalibrationError("There are no calibration images; pass a folder or an iterable of pictures.")
    recorder = Recorder()
    with using_sites(recorder), torch.no_grad():
        for count, driver in enumerate(samples.drivers(), 1):
            run_driver(driver, executor.run)
            progress("calibrate: images", count, len(samples))
    return recorder
