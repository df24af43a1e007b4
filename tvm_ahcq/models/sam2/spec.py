"""Figures of a SAM 2 that pre- and post-processing need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm_ahcq.models.square_spec import SquareSpec


@dataclass(frozen=True)
class Sam2Spec(SquareSpec):
    """Figures of a SAM 2; those of pixels are on the 0..1 scale, and images are squashed to the square.

    Attributes
    ----------
    stability_delta, stability_threshold : float
        Where one mask is asked for: mask 0 counts if the areas above ``delta`` and above ``-delta`` have at least this
        ratio, else the best of the other three.
    """

    family: ClassVar[str] = "sam2"

    stability_delta: float
    stability_threshold: float
