"""Figures that all models of square images with an image embedding have."""

from __future__ import annotations

from dataclasses import dataclass

from .description import ModelSpec


@dataclass(frozen=True)
class SquareSpec(ModelSpec):
    """Figures of a promptable model that takes square images.

    Attributes
    ----------
    name : str
        Model type.
    image_size : int
        Side S of the model input in pixels.
    grid : int
        Side of the image embedding, S / 16; low-resolution masks have side ``4 * grid``.
    prompt_dim : int
        Channels C of the image embedding.
    mask_threshold : float
        Logits above it are foreground.
    pixel_mean, pixel_std : tuple of float
        RGB, on the scale that the family's pre-processing uses.
    """

    image_size: int
    grid: int
    prompt_dim: int
    mask_threshold: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

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
        """Tokens of the image embedding, as most blocks of the image encoder have."""
        return self.grid**2
