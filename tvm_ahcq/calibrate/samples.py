"""Calibration samples, with the model that they are driven through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tvm_ahcq.models.description import ModelFamily, ModelSpec
from tvm_ahcq.models.execution import Driver
from tvm_ahcq.models.registry import find_family


@dataclass(frozen=True)
class Samples:
    """Calibration samples with the model that they are driven through.

    Attributes
    ----------
    spec : ModelSpec
        Figures of the model; its family says how a sample is driven.
    inputs : sequence of numpy.ndarray
        Samples, as the family prepares them.
    """

    spec: ModelSpec
    inputs: Sequence[np.ndarray]

    @cached_property
    def family(self) -> ModelFamily:
        """Description of the model."""
        return find_family(self.spec.family)

    def first(self, count: int) -> Samples:
        """Return the first `count` samples."""
        return replace(self, inputs=self.inputs[:count])

    def drivers(self) -> list[Driver]:
        """Return a new driver for each sample, seeded with the sample's number from 1 on."""
        return [self.family.drive(self.spec, sample, seed) for seed, sample in enumerate(self.inputs, 1)]

    def __len__(self) -> int:
        return len(self.inputs)
