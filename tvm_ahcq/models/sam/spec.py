"""Figures of a SAM that pre- and post-processing need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm_ahcq.models.description import ModelSpec


@dataclass(frozen=True)
class SamSpec(ModelSpec):
    """Figures of a SAM.

    Attributes
    ----------
    name : str
        ``"vit_t"``, ``"vit_b"``, ...
    image_size : int
        Side S of the square model input in pixels.
    grid : int
        Side of the image embedding, S / 16; low-resolution masks have side ``4 * grid``.
    prompt_dim : int
        Channels C of the image embedding.
    mask_threshold : float
        Logits above it are foreground.
    pixel_mean, pixel_std : tuple of float
        RGB, on the 0..255 scale.
    """

    family: ClassVar[str] = "sam"

    image_size: int
    grid: int
    prompt_dim: int
    mask_threshold: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    @property
    def image_format(self) -> str:
        """Channel order of the model input; ``"RGB"`` for every SAM."""
        return "RGB"

    @property
    def input_text(self) -> str:
        """Size of the model's input, for people."""
        return f"{self.image_size}x{self.image_size}"

    @property
    def summary(self) -> str:
        """Sizes of image and embedding, for people."""
        return f"image {self.input_text}, embedding {self.prompt_dim}x{self.grid}x{self.grid}"

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return self.grid**2

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SamSpec:
        """Return the inverse of :meth:`to_dict`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a field is missing or of a wrong type.
        """
        return cls(
            str(stored["name"]),
            int(stored["image_size"]),
            int(stored["grid"]),
            int(stored["prompt_dim"]),
            float(stored["mask_threshold"]),
            _three(stored["pixel_mean"]),
            _three(stored["pixel_std"]),
        )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
