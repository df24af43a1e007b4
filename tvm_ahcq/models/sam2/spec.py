"""Figures of a SAM 2 that pre- and post-processing need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm_ahcq.models.description import ModelSpec


@dataclass(frozen=True)
class Sam2Spec(ModelSpec):
    """Figures of a SAM 2.

    Attributes
    ----------
    name : str
        ``"sam2.1_hiera_t"``, ...
    image_size : int
        Side S of the square model input in pixels; images are squashed to it.
    grid : int
        Side of the image embedding, S / 16; low-resolution masks have side ``4 * grid``.
    prompt_dim : int
        Channels C of the image embedding.
    mask_threshold : float
        Logits above it are foreground.
    pixel_mean, pixel_std : tuple of float
        RGB, on the 0..1 scale.
    stability_delta, stability_threshold : float
        Where one mask is asked for: mask 0 counts if the areas above ``delta`` and above ``-delta`` have at least this
        ratio, else the best of the other three.
    """

    family: ClassVar[str] = "sam2"

    image_size: int
    grid: int
    prompt_dim: int
    mask_threshold: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    stability_delta: float
    stability_threshold: float

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
        """Tokens of the third stage of the image encoder, where most blocks are."""
        return self.grid**2
