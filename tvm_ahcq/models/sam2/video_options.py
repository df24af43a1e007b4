"""Options of tracking in videos, with upstream's names and defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoOptions:
    """How a video is tracked; the defaults are those of upstream's ``build_sam2_video_predictor``.

    Upstream's settings for benchmarks (``vos_inference``) have neither holes filled nor `binarize...` nor `stability`.

    Attributes
    ----------
    fill_hole_area : int
        Holes of low-resolution masks up to this area in pixels are filled; 0 leaves them.
    non_overlap_masks : bool
        Give each pixel to one object at most: the one with the greatest logit.
    clear_non_cond_mem_around_input : bool
        Forget the memories of unprompted frames around a prompted one, which may show what the prompt corrects.
    clear_non_cond_mem_for_multi_obj : bool
        Do so with several objects too.
    add_all_frames_to_correct_as_cond : bool
        Make a frame a conditioning frame when it is corrected after it was tracked.
    binarize_mask_from_pts_for_mem_enc : bool
        Encode masks of prompted frames as 0 and 1.
    stability : bool
        Where one mask is asked for, take the best of the others if the first is not stable.
    """

    fill_hole_area: int = 8
    non_overlap_masks: bool = False
    clear_non_cond_mem_around_input: bool = False
    clear_non_cond_mem_for_multi_obj: bool = False
    add_all_frames_to_correct_as_cond: bool = False
    binarize_mask_from_pts_for_mem_enc: bool = True
    stability: bool = True
