"""Figures of a SAM that pre- and post-processing need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm_ahcq.models.square_spec import SquareSpec


@dataclass(frozen=True)
class SamSpec(SquareSpec):
    """Figures of a SAM; those of pixels are on the 0..255 scale."""

    family: ClassVar[str] = "sam"

    @property
    def image_format(self) -> str:
        """Channel order of the model input; ``"RGB"`` for every SAM."""
        return "RGB"
