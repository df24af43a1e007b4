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
    video : bool
        True if the functions of the memory are among those of the model.
    memories : int
        Memories that a frame reads, the conditioning one included.
    max_pointers : int
        Object pointers that a frame reads, besides those of conditioning frames.
    memory_dim : int
        Channels of a memory.
    memory_scale, memory_bias : float
        The memory encoder reads probabilities of the mask times the scale plus the bias.
    signed_distances : bool
        True if distances of pointers in time are negative for frames that come later.
    past_pointers_only : bool
        True if pointers of conditioning frames that come later are left out.
    max_conditioning : int
        Conditioning frames that a frame reads at most; -1 for all.
    memory_stride : int
        Memories are those of every so many frames.
    multimask_points : tuple of int
        Least and greatest number of points of an ambiguous prompt, for which the best of three masks is taken.
    """

    family: ClassVar[str] = "sam2"

    stability_delta: float
    stability_threshold: float
    video: bool
    memories: int
    max_pointers: int
    memory_dim: int
    memory_scale: float
    memory_bias: float
    signed_distances: bool
    past_pointers_only: bool
    max_conditioning: int
    memory_stride: int
    multimask_points: tuple[int, int]

    @property
    def tracks(self) -> bool:
        """True if the model has the functions of the memory."""
        return self.video
