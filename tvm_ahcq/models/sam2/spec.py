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
        Memories of frames that a frame reads beside those of further conditioning frames (upstream, ``num_maskmem``).
    max_pointers : int
        Object pointers of unprompted frames that a frame reads, and one more (``max_obj_ptrs_in_encoder``).
    memory_dim : int
        Channels c of a memory.
    memory_scale, memory_bias : float
        The memory encoder reads ``sigmoid(logit) * scale + bias``.
    signed_distances : bool
        Whether distances of object pointers have a sign (``use_signed_tpos_enc_to_obj_ptrs``).
    past_pointers_only : bool
        Whether pointers of conditioning frames ahead are left out (``only_obj_ptrs_in_the_past_for_eval``).
    max_conditioning : int
        Conditioning frames that a frame reads, the nearest ones; -1 for all (``max_cond_frames_in_attn``).
    memory_stride : int
        Of the frames before the last one that are read (``memory_temporal_stride_for_eval``).
    multimask_points : tuple of int
        With from so many to so many points, the best of three masks is taken.
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
