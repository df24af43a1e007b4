"""Progressive grouping of the channel groups of CAG sites while a unit is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tvm_ahcq.quantizers.activation.cag import CagParams, calibrate_cag, regroup_by_error
from tvm_ahcq.torch_exec.fake_quant import FakeQuantSites
from tvm_ahcq.torch_exec.trainable import TrainableSites

ROWS_AN_IMAGE = 128
"""Rows of a site that are kept of each image."""

GROUPING_SHARE = 0.6
"""Part of the iterations after which the final number of groups is reached."""


class ProgressiveGroups:
    """Schedule of group counts: many channel groups first, the recipe's number at 60 % of the iterations.

    Parameters
    ----------
    sites : TrainableSites
        Sites that are trained; their CAG quantizers are replaced.
    rows : mapping of str to numpy.ndarray
        ``(R, C)`` rows of each CAG site.
    energy : mapping of str to numpy.ndarray
        ``(C,)`` float64: ``||W[:, c]||**2`` of the layer that reads the site.
    counts : sequence of int
        Numbers of groups, in order; the last is final.
    iterations : int
        Of the whole training.
    """

    def __init__(
        self,
        sites: TrainableSites,
        rows: Mapping[str, np.ndarray],
        energy: Mapping[str, np.ndarray],
        counts: Sequence[int],
        iterations: int,
    ):
        self.sites, self.rows, self.energy, self.counts = sites, rows, energy, counts
        self.starts = [round(GROUPING_SHARE * iterations * i / len(counts)) for i in range(len(counts))]

    def regroup(self, iteration: int) -> bool:
        """Regroup the sites if a new count starts at `iteration`; return True if it does."""
        if iteration not in self.starts or not self.rows or len(self.counts) == 1:  # calibration's groups are final
            return False
        # where several fall together (few iterations), the last counts
        stage = len(self.starts) - 1 - self.starts[::-1].index(iteration)
        for site, rows in self.rows.items():
            if stage == 0:
                bits = self.sites.quantizers[site].bits
                params = calibrate_cag(rows, bits, self.energy[site], groups=self.counts[0])
            else:
                trained = self.sites.trained(site)
                assert isinstance(trained, CagParams), "of a CAG site"
                params = regroup_by_error(trained, rows, self.counts[stage], self.energy[site])
            self.sites.set_quantizer(site, params)
        return True


class RowSampler(FakeQuantSites):
    """Quantized stream that keeps some rows (random, by torch's generator) of what enters some sites.

    Parameters
    ----------
    base : FakeQuantSites
        Quantizers and layers of the stream.
    sites : sequence of str
        Sites whose rows are kept.
    """

    def __init__(self, base: FakeQuantSites, sites: Sequence[str]):
        super().__init__(base.quantizers, base.layers)
        self.samples: dict[str, list[np.ndarray]] = {site: [] for site in sites}

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Keep some rows of `x`, and quantize it."""
        if site in self.samples:
            flat = x.reshape(-1, x.shape[-1])
            self.samples[site].append(flat[torch.randperm(len(flat))[:ROWS_AN_IMAGE]].numpy())
        return super().activation(site, x, activation)

    def rows(self) -> dict[str, np.ndarray]:
        """Return the rows of each site, ``(R, C)`` float32."""
        return {site: np.concatenate(rows) for site, rows in self.samples.items()}
